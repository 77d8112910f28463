// The page of the service: its queue, one submission's progress, a place to drop a suite. What users wrote is only ever
// put in as text. The token stays in this tab, and goes with each request to where the page came from.

const at = (id) => document.getElementById(id);
const EVERY = 5000; // milliseconds between two looks at the queue
const LINES = 500; // of a submission's story that are kept
const ACTIONS = {
  queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"],
  incomplete: ["retry"], failed: ["retry"], canceled: ["retry"], complete: [],
};
const PAGE = 100; // submissions that one request lists
let chosen = null; // the submission that is shown
let pages = 1; // of submissions that are shown
let following = null; // ends the stream of its events
let looks = 0; // at the queue, that were begun
let latest = 0; // of those, the one that is shown
let seen = ""; // by it

class Refused extends Error {
  constructor(status, told) {
    super(told.error);
    Object.assign(this, { status, hint: told.hint ?? "", mistakes: told.mistakes ?? [] });
  }
}

async function ask(method, path, more = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...more.headers, Authorization: `Bearer ${token}` };
  const answer = await fetch(path, { method, ...more, headers, cache: "no-store" });
  at("away").hidden = answer.status < 502;
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  const refused = new Refused(answer.status, told);
  if (answer.status === 401 && token === sessionStorage.getItem("token")) { // no late answer to who was here before
    leave();
    say(refused); // whoever was thrown out is told why, also where nobody pressed a button
  }
  throw refused;
}

function made(tag, text, ...classes) {
  const element = document.createElement(tag);
  element.textContent = text;
  element.classList.add(...classes);
  return element;
}

function say(problem) {
  const told = problem instanceof Refused ? `${problem.message}. ${problem.hint}` : "The service does not answer.";
  at("away").hidden = true; // it is said once
  at("problem").textContent = told;
  at("problem").hidden = false;
}

// Runs what a user asked for, and says what went wrong.
const guarded = (act) => async (...given) => {
  at("problem").hidden = true;
  try {
    await act(...given);
  } catch (problem) {
    if (problem.name !== "AbortError") say(problem);
  }
};

// --- coming and going

async function enter() {
  const me = await (await ask("GET", "v1/me")).json();
  await look();
  at("me").firstElementChild.textContent = `${me.user}, ${me.role}`;
  for (const name of ["mlflow", "ray"]) {
    at(name).hidden = !/^(https?:\/\/|\/)/.test(me[name] ?? "");
    if (!at(name).hidden) at(name).href = me[name];
  }
  at("door").hidden = true;
  at("me").hidden = at("inside").hidden = false;
  at("drop").hidden = !me.scopes.includes("submit");
}

function leave() {
  following?.abort();
  chosen = null;
  pages = 1;
  at("away").hidden = at("more").hidden = true;
  sessionStorage.removeItem("token");
  at("door").hidden = false;
  at("me").hidden = at("inside").hidden = at("one").hidden = true;
  at("queue").replaceChildren();
  seen = "";
  at("story").replaceChildren();
}

// --- the queue

async function look() {
  const number = (looks += 1);
  const all = [];
  let more = true;
  for (let page = 0; page < pages && more; page++) {
    const last = all.at(-1);
    const from = last ? `?before=${last.created}&after=${last.id}` : "";
    const { submissions } = await (await ask("GET", `v1/submissions${from}`)).json();
    all.push(...submissions);
    more = submissions.length === PAGE;
  }
  if (number < latest) return; // it took longer than one that was begun later
  latest = number;
  at("empty").hidden = all.length > 0;
  at("more").hidden = !more;
  const now = JSON.stringify([chosen, all]);
  if (now === seen) return; // a click on a line that is swapped meanwhile would be lost
  seen = now;
  const focused = document.activeElement?.dataset?.id;
  at("queue").replaceChildren(...all.map(line));
  if (focused) at("queue").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

// What is looked at again and again says that the service is away, and takes it back once it answers.
const again = (act) => act().catch((problem) => {
  if (!(problem instanceof Refused) && problem.name !== "AbortError") at("away").hidden = false;
});

function line(one) {
  const row = document.createElement("tr");
  row.classList.toggle("chosen", one.id === chosen);
  const name = made("button", one.id);
  name.type = "button";
  name.dataset.id = one.id;
  name.addEventListener("click", guarded(() => follow(one.id)));
  const first = document.createElement("td");
  first.append(name);
  const tasks = one.total ? `${one.done} / ${one.total}` : "";
  const when = new Date(one.created * 1000).toLocaleString();
  row.append(
    first, made("td", one.owner), made("td", state(one)), made("td", tasks, "number"),
    made("td", one.failed || "", "number"), made("td", one.priority, "number"), made("td", when),
  );
  return row;
}

// crypto.randomUUID is not there where a page comes by plain HTTP from elsewhere than this machine.
const unique = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const state = (one) => (one.wish ? `${one.state} (${one.wish} is on its way)` : one.state);

// --- one submission

async function follow(id) {
  following?.abort();
  following = new AbortController();
  chosen = id;
  at("one-title").textContent = id;
  at("story").replaceChildren();
  at("one").hidden = false;
  await look();
  const { signal } = following;
  let last = 0;
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": String(last) } : {};
      const answer = await ask("GET", `v1/submissions/${id}/events`, { headers, signal });
      for await (const event of events(answer.body)) {
        last = event.id ?? last;
        if (event.kind === "progress") show(event.data);
        else tell(event.data);
      }
      const now = await (await ask("GET", `v1/submissions/${id}`, { signal })).json();
      show(now);
      if (now.ended !== null) return await look();
    } catch (problem) {
      const passes = problem instanceof Refused ? problem.status >= 502 : !signal.aborted;
      if (!passes) throw problem;
      at("away").hidden = false;
      await new Promise((later) => setTimeout(later, 1000)); // the connection broke off: go on where it was
    }
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((one) => one.split(/: (.*)/s, 2)));
      if (fields.data) yield { kind: fields.event, id: fields.id && Number(fields.id), data: JSON.parse(fields.data) };
    }
  }
}

function show(one) {
  if (one.id !== chosen) return;
  const bar = at("bar");
  if (one.total) Object.assign(bar, { max: one.total, value: one.done });
  else if (one.ended === null) bar.removeAttribute("value");
  else Object.assign(bar, { max: 1, value: one.state === "complete" ? 1 : 0 });
  const tasks = one.total ? `${one.done} of ${one.total} tasks` : "";
  const failed = one.failed ? `${one.failed} failed` : "";
  const eta = one.eta === null ? "" : `about ${Math.ceil(one.eta)} s left`;
  at("facts").textContent = [state(one), tasks, failed, eta, one.message].filter(Boolean).join(" · ");
  const wanted = ACTIONS[one.state].join() + one.ended;
  if (at("actions").dataset.wanted === wanted + one.id) return;
  at("actions").dataset.wanted = wanted + one.id;
  at("actions").replaceChildren(...ACTIONS[one.state].map((verb) => action(verb, () => change(one.id, verb))));
  if (one.state === "complete" || one.state === "incomplete") at("actions").prepend(action("leaderboard", () => open(one.id)));
}

function action(name, act) {
  const button = made("button", name);
  button.type = "button";
  button.addEventListener("click", guarded(act));
  return button;
}

async function change(id, verb) {
  await ask("POST", `v1/submissions/${id}/${verb}`);
  follow(id).catch((problem) => problem.name === "AbortError" || say(problem));
}

async function open(id) {
  const { url } = await (await ask("POST", `v1/submissions/${id}/link`)).json();
  location.assign(url.replace(/^\//, ""));
}

function tell({ time, text }) {
  const entry = document.createElement("p");
  const when = made("time", new Date(time * 1000).toLocaleTimeString());
  when.dateTime = new Date(time * 1000).toISOString();
  entry.append(when, text);
  at("story").append(entry);
  while (at("story").childElementCount > LINES) at("story").firstElementChild.remove();
  at("story").scrollTop = at("story").scrollHeight;
}

// --- handing in

async function submit(file) {
  at("mistakes").hidden = true;
  const headers = { "Content-Type": "application/yaml", "Idempotency-Key": unique() };
  const path = `v1/submissions?shared=${at("shared").checked}`;
  try {
    const found = await (await ask("POST", path, { headers, body: await file.arrayBuffer() })).json();
    at("file").value = "";
    follow(found.id).catch((problem) => problem.name === "AbortError" || say(problem));
  } catch (problem) {
    if (!(problem instanceof Refused) || !problem.mistakes.length) throw problem;
    at("mistakes").replaceChildren(...problem.mistakes.map((mistake) => made("li", mistake)));
    at("mistakes").hidden = false;
    at("file").value = "";
  }
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = at("token").value.trim();
  at("token").value = "";
  if (!/^[!-~]+$/.test(token)) return say(new Refused(401, { error: "This is no token", hint: "It begins with gauntlet_." }));
  sessionStorage.setItem("token", token);
  guarded(enter)();
});
at("me").lastElementChild.addEventListener("click", leave);
at("more").addEventListener("click", guarded(() => ((pages += 1), look())));
at("file").addEventListener("change", guarded(() => at("file").files.length && submit(at("file").files[0])));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) guarded(submit)(event.dataTransfer.files[0]);
  });
}
setInterval(() => at("inside").hidden || document.hidden || again(look), EVERY);
if (sessionStorage.getItem("token")) guarded(enter)();
document.documentElement.dataset.ready = "yes";
