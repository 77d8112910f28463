
"use strict";
// Sorting by a click on a heading, or by the list that stands for the headings on a phone. Missing values stay last.
for (const section of document.querySelectorAll("main > section")) {
  const table = section.querySelector(".board");
  const body = table.tBodies[0];
  const headings = [table.querySelector("thead .rank"), ...table.querySelectorAll("thead tr:last-child th")];
  const picker = section.querySelector(".sort select");

  const value = (row, column) => {
    const text = row.querySelectorAll("td")[column].querySelector("data")?.value;
    return text ? Number(text) : null;
  };
  const sort = (column, descending) => {
    const rows = [...body.rows].sort((left, right) => {
      const [a, b] = [value(left, column), value(right, column)];
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? b - a : a - b;
    });
    body.append(...rows);
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    picker.value = column;
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const bestFirst = heading.dataset.better === "high";
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      sort(column, now ? now === "ascending" : bestFirst);
    });
    picker.add(new Option(heading.dataset.title ?? "rank", column));
  });
  picker.addEventListener("change", () => {
    const column = Number(picker.value);
    sort(column, headings[column].dataset.better === "high");
  });
  picker.closest(".sort").hidden = false;
}
addEventListener("beforeprint", () => document.querySelectorAll("details.all").forEach((part) => (part.open = true)));
