"use strict";
// DataTables sorts, searches and filters, Chart.js draws; this tells them what the page holds.
const data = JSON.parse(document.getElementById("data").textContent);
const ALL = "all";
const dark = matchMedia("(prefers-color-scheme: dark)");
const inks = (print) => (dark.matches && !print ? { ink: "#e6ebf2", soft: "#98a5b5", line: "#2a3340" } : { ink: "#17202b", soft: "#5b6775", line: "#dfe4ea" });
const missingLast = (way) => (a, b) => (a === null || b === null ? (a === null) - (b === null) : way * (a - b));

DataTable.type("figure", {
  order: { pre: (value) => (value === "" || value === null ? null : Number(value)), asc: missingLast(1), desc: missingLast(-1) },
});

const boards = [...document.querySelectorAll("main > section[data-dataset]")].map((section, number) => {
  const board = section.querySelector(".board");
  const headings = [...board.querySelectorAll("thead tr:last-child th")];
  const firsts = headings.map((heading) => (heading.dataset.better === "high" ? ["desc", "asc"] : ["asc", "desc"]));
  const table = new DataTable(board, {
    paging: false, info: false, autoWidth: false, order: [[0, "asc"]], titleRow: 1,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columnDefs: [
      { targets: 1, type: "string", orderSequence: ["asc", "desc"] },
      ...firsts.map((orderSequence, index) => ({ targets: index + 2, type: "figure", orderSequence })),
      { targets: 0, type: "figure", orderSequence: ["asc", "desc"] },
    ],
    language: { emptyTable: "no models", zeroRecords: "no model passes the filters" },
  });
  const picker = section.querySelector(".sort select");
  picker.add(new Option("rank", 0));
  headings.forEach((heading, index) => picker.add(new Option(heading.dataset.name, index + 2)));
  picker.addEventListener("change", () => {
    const column = Number(picker.value);
    table.order([column, column ? firsts[column - 2][0] : "asc"]).draw();
  });
  picker.closest(".sort").hidden = false;
  return { section, table, headings, ...data.sections[number] };
});

// --- filters ---------------------------------------------------------------------------------------------------------
const filters = document.querySelector(".filters");
const chosen = (name) => filters.querySelector(`[name=${name}]`)?.value ?? ALL;
function filter() {
  const words = filters.querySelector("[name=search]").value;
  for (const { section, table, headings, dataset } of boards) {
    section.hidden = ![ALL, dataset].includes(chosen("dataset"));
    for (const name of ["family", "realisation", "hardware"]) {
      table.search.fixed(name, (_, __, index) => [ALL, table.row(index).node().dataset[name]].includes(chosen(name)));
    }
    headings.forEach((heading, index) => {
      const shown = [ALL, ""].includes(chosen("norm")) || ["", chosen("norm")].includes(heading.dataset.norm);
      if (table.column(index + 2).visible() !== shown) table.column(index + 2).visible(shown);
    });
    table.search(words).draw();
  }
  count();
}
function count() {
  const rows = boards.reduce((sum, { section, table }) => sum + (section.hidden ? 0 : table.rows({ search: "applied" }).count()), 0);
  filters.querySelector("output").textContent = `${rows} row${rows === 1 ? "" : "s"}`;
}
filters.addEventListener("change", ({ target }) => {
  if (target.name !== "search") filter(); // its text is followed as it is typed: a redraw as it loses the focus would swallow a click
});
filters.querySelector("[name=search]").addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
filters.hidden = false;

// --- pictures --------------------------------------------------------------------------------------------------------
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [], [6, 3], [2, 2]];
const POINTS = ["circle", "rect", "triangle", "rectRot", "crossRot", "star", "rectRounded"];
const percent = (value) => `${(100 * value).toFixed(0)} %`;
const figure = ({ share, title }, value) => `${title} ${share ? `${(100 * value).toFixed(1)} %` : Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value)}`;
const axis = (title, palette, more = {}) => ({
  title: { display: true, text: title, color: palette.ink }, ticks: { color: palette.soft, maxTicksLimit: 8 }, grid: { color: palette.line }, ...more,
});
const ticks = (column, palette) => ({ color: palette.soft, maxTicksLimit: 8, callback: (value) => (column.share ? percent(value) : Intl.NumberFormat("en", { notation: "compact" }).format(value)) });
const scale = (points) => { // logarithmic where the values are far apart
  const xs = points.map((p) => p.x);
  return xs.length && Math.min(...xs) > 0 && Math.max(...xs) > 30 * Math.min(...xs) ? "logarithmic" : "linear";
};
const visible = ({ table }) => table.rows({ search: "applied", order: "applied" }).nodes().toArray().map((row) => row.dataset.model);

// A line with its interval for each of the models: points are [x, value, low, high].
function curves(found, palette, x, head) {
  const datasets = found.flatMap(([label, points], index) => {
    const colour = data.colours[index];
    const edge = (end, fill) => ({ label: "", data: points.map((p) => ({ x: p[0], y: p[end] })), borderWidth: 0, pointRadius: 0, fill, backgroundColor: `${colour}26` });
    const line = { label, data: points.map((p) => ({ x: p[0], y: p[1], low: p[2], high: p[3] })), borderColor: colour, backgroundColor: colour, borderDash: DASHES[index], pointStyle: POINTS[index], pointRadius: 4 };
    return [line, edge(2, false), edge(3, "-1")];
  });
  return {
    type: "line", data: { datasets },
    options: {
      scales: { x, y: axis("robust accuracy", palette, { min: 0, max: 1, ticks: { color: palette.soft, callback: percent } }) },
      plugins: {
        legend: { labels: { color: palette.ink, usePointStyle: true, boxHeight: 8, filter: (item) => item.text !== "" }, onClick: (_, item, legend) => [0, 1, 2].forEach((k) => legend.chart.setDatasetVisibility(item.datasetIndex + k, !legend.chart.isDatasetVisible(item.datasetIndex + k))) || legend.chart.update() },
        tooltip: { filter: (item) => item.dataset.label !== "", callbacks: { title: (items) => items[0] && `${head} ${items[0].raw.x}`, label: ({ dataset, raw }) => `${dataset.label}: ${(100 * raw.y).toFixed(1)} % (${(100 * raw.low).toFixed(1)}–${(100 * raw.high).toFixed(1)})` } },
      },
    },
  };
}

function robustness(board, palette) {
  const key = board.section.querySelector(".robustness select").value;
  const [norm] = key.split("/");
  const found = visible(board).filter((model) => board.series[model]?.[key]).slice(0, data.colours.length).map((model) => [model, board.series[model][key]]);
  return curves(found, palette, axis(`ε (${data.norms[norm] ?? norm})`, palette, { type: "linear", min: 0 }), "ε =");
}

function sweeps(board, palette) {
  const index = Number(board.section.querySelector(".sweeps select").value);
  const { budget, points } = data.sweeps[index];
  const found = visible(board).map((model) => [model, board.sweeps[model]?.[index] ?? []]).filter(([, p]) => p.length > 1).slice(0, data.colours.length);
  const type = points[0][0] > 0 && points.at(-1)[0] > 30 * points[0][0] ? "logarithmic" : "linear";
  return curves(found, palette, axis(budget, palette, { type }), `${budget}:`);
}

function families(board, palette) {
  const [x, y] = [...board.section.querySelectorAll(".families select")].map((select) => board.columns[select.value]);
  const there = new Set(visible(board));
  const sets = Object.entries(board.curves).map(([label, models]) => [label, models.filter((model) => there.has(model)).map((model) => ({ model, x: board.values[x.name][model], y: board.values[y.name][model] })).filter((p) => p.x != null && p.y != null).sort((p, q) => p.x - q.x)]);
  const datasets = sets.filter(([, points]) => points.length > 1).slice(0, data.colours.length).map(([label, points], index) => ({ label, data: points, showLine: true, borderColor: data.colours[index], backgroundColor: data.colours[index], borderDash: DASHES[index], pointStyle: POINTS[index], pointRadius: 4, borderWidth: 2 }));
  return {
    type: "scatter", data: { datasets },
    options: {
      scales: { x: axis(x.title, palette, { type: scale(datasets.flatMap((set) => set.data)), ticks: ticks(x, palette) }), y: axis(y.title, palette, { ticks: ticks(y, palette) }) },
      plugins: { legend: { labels: { color: palette.ink, usePointStyle: true, boxHeight: 8 } }, tooltip: { callbacks: { label: ({ raw }) => `${raw.model}: ${figure(x, raw.x)}, ${figure(y, raw.y)}` } } },
    },
  };
}

function pareto(board, palette) {
  const [x, y] = [...board.section.querySelectorAll(".pareto select")].map((select) => board.columns[select.value]);
  const points = visible(board).map((model) => ({ model, x: board.values[x.name][model], y: board.values[y.name][model] })).filter((p) => p.x != null && p.y != null);
  const gain = (p, q, { higher }, key) => (higher ? p[key] - q[key] : q[key] - p[key]);
  const beats = (p, q) => gain(p, q, x, "x") >= 0 && gain(p, q, y, "y") >= 0 && gain(p, q, x, "x") + gain(p, q, y, "y") > 0;
  const best = points.filter((q) => !points.some((p) => beats(p, q))).sort((p, q) => p.x - q.x);
  const names = { id: "names", afterDatasetsDraw: (chart) => {
    if (points.length > 16) return;
    chart.ctx.fillStyle = palette.ink;
    chart.ctx.font = "12px sans-serif";
    chart.data.datasets.forEach((set, index) => set.data.forEach((point, k) => {
      const { x: left, y: top } = chart.getDatasetMeta(index).data[k];
      const right = left > (chart.chartArea.left + chart.chartArea.right) / 2;
      chart.ctx.textAlign = right ? "right" : "left";
      chart.ctx.fillText(point.model, left + (right ? -9 : 9), top + 4);
    }));
  } };
  const dots = (label, chosen, colour, more) => ({ label, data: chosen, backgroundColor: colour, borderColor: colour, pointRadius: 6, ...more });
  return {
    type: "scatter", plugins: [names],
    data: { datasets: [dots("not beaten in both", best, data.colours[0], { showLine: true, borderWidth: 1 }), dots("beaten", points.filter((p) => !best.includes(p)), data.colours[6], { pointStyle: "rect" })] },
    options: {
      clip: false, layout: { padding: 8 },
      scales: { x: axis(x.title, palette, { type: scale(points), ticks: ticks(x, palette) }), y: axis(y.title, palette, { ticks: ticks(y, palette) }) },
      plugins: { legend: { labels: { color: palette.ink, usePointStyle: true, boxHeight: 8 } }, tooltip: { callbacks: { label: ({ raw }) => `${raw.model}: ${figure(x, raw.x)}, ${figure(y, raw.y)}` } } },
    },
  };
}

function draw(print = false) {
  for (const board of boards.filter(({ section }) => !section.hidden)) {
    for (const [name, recipe] of Object.entries({ robustness, sweeps, families, pareto })) {
      const canvas = board.section.querySelector(`.${name} canvas`);
      if (!canvas) continue;
      Chart.getChart(canvas)?.destroy();
      const made = recipe(board, inks(print));
      new Chart(canvas, { ...made, options: { animation: false, maintainAspectRatio: false, ...made.options } });
    }
  }
}
for (const board of boards) {
  const pictures = board.section.querySelector(".pictures");
  if (!pictures) continue;
  pictures.hidden = false;
  pictures.addEventListener("change", () => draw());
  board.table.on("draw", () => requestAnimationFrame(() => draw()));
}
dark.addEventListener("change", () => draw());
count();
draw();
document.documentElement.dataset.ready = "true";
requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("ready"))); // it is painted
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.all").forEach((part) => (part.open = true));
  draw(true);
});
addEventListener("afterprint", () => draw());
