// The page: who labels, what is in front of them, what they said, and that it is kept.

import { el, kbd, prose } from "./dom.js";
import { help, menu, showStanding } from "./frame.js";
import { kinds } from "./kinds.js";
import { deliver, deliverLeftovers, memory, post, Refused, ticket } from "./net.js";
import { supervise } from "./supervise.js";
import { promptAndAnswer } from "./writing.js";

const RATER = "rlhf-gym.rater";
const SETTLE = 200;  // ms in which nobody can have read the new query: a bouncing key answers nothing
const LOOK_AGAIN = 2000;  // ms between looks for new queries
const RETRY = 1500;  // ms between attempts while the store is busy

const main = document.getElementById("main"), bar = document.getElementById("bar");
const alertBox = document.getElementById("alert"), status = document.getElementById("status");

const state = { rater: memory.get(RATER, ""), session: null, settings: {}, query: null, view: null,
  desk: null, busy: false, shownAt: 0, seconds: 0, timer: null };

// What the rater is told ------------------------------------------------------------------------

export function complain(problem, ...more) {
  alertBox.replaceChildren(el("span", {}, problem), ...more);
  alertBox.hidden = false;
}

function calm() {
  alertBox.hidden = true;
  alertBox.replaceChildren();
}

const announce = (text) => { status.textContent = text; };

// The time that a query was really in view -------------------------------------------------------

const clock = { since: null, total: 0 };
function resumeClock() {
  if (clock.since === null && !document.hidden) clock.since = performance.now();
}
function pauseClock() {
  if (clock.since !== null) clock.total += performance.now() - clock.since;
  clock.since = null;
}
function elapsed() {
  const running = clock.since === null ? 0 : performance.now() - clock.since;
  return (clock.total + running) / 1000;
}

// Drafts -----------------------------------------------------------------------------------------

const draftName = (query) => `rlhf-gym.draft.${state.rater}.${query.key}`;

function keepDraft() {
  const { query, view } = state;
  if (!query || !view) return;
  const draft = view.draft?.() ?? null;
  if (draft === null) memory.remove(draftName(query));
  else memory.set(draftName(query), { draft, seconds: elapsed() });
}

// A query on the screen --------------------------------------------------------------------------

function leave() {
  state.desk?.player?.stop();
  clearTimeout(state.timer);
  state.view = null;
  state.desk = null;
  bar.replaceChildren();
}

function show(query, undone = null) {
  leave();
  calm();
  state.query = query;
  const kept = memory.get(draftName(query));
  const desk = { settings: state.settings, draft: kept?.draft, undone, player: null,
    send: (label) => give(label), changed: () => { refresh(); keepDraft(); } };
  state.desk = desk;
  const view = kinds[query.question](query, desk);
  clock.since = null;
  clock.total = (kept?.seconds ?? 0) * 1000;
  put(view, query.prompt ? [el("section", { class: "prompt", "aria-label": "Prompt" },
    el("h2", { class: "name" }, "Prompt"), prose(query.prompt))] : [], { skip: true, undone });
  main.dataset.query = query.id;
  main.dataset.question = query.question;
}

// Lays out a view: title, what is before it, its body, and its buttons.
function put(view, before, { skip = false, undone = null } = {}) {
  state.view = view;
  const title = el("h1", { tabindex: -1 }, view.title);
  delete main.dataset.ready;
  main.replaceChildren(title, ...before, ...view.body);
  bar.replaceChildren(...buttons(view, skip));
  view.start?.();
  refresh();
  mark(view, undone);
  scrollTo(0, 0);
  (view.focus ?? title).focus({ preventScroll: true });
  announce(view.title);
  state.shownAt = performance.now();
  resumeClock();
  setTimeout(() => { if (state.view === view) main.dataset.ready = state.query?.id ?? "own"; }, SETTLE);
}

function buttons(view, skip) {
  const aside = skip ? [
    button({ name: "Undo", keys: ["u"], run: undo, tone: "quiet" }),
    button({ name: "Skip", keys: ["s"], run: () => give({ kind: "skip" }), tone: "quiet" }),
  ] : [button({ name: "Back", keys: ["escape"], run: () => next(), tone: "quiet" })];
  const answers = view.actions.map(button);
  if (view.scale) {
    answers.unshift(el("span", { class: "faint small" }, view.scale[0]));
    answers.push(el("span", { class: "faint small" }, view.scale[1]));
  }
  return [el("div", { class: "aside" }, aside), el("div", { class: view.scale ? "answers scale" : "answers", role: "group",
    "aria-label": "Answers" }, answers)];
}

const label = (action) => (typeof action.name === "function" ? action.name() : action.name);

function button(action) {
  const made = el("button", { type: "button", class: action.tone ?? "", "aria-label": action.spoken,
    onclick: () => run(action) }, el("span", { dir: "auto" }, label(action)),
  // A key that is the button's own name, or its first word, need not be shown again.
  action.keys.length && label(action).split(" ")[0] !== action.keys[0] ? kbd(action.keys[0]) : null);
  made.title = action.keys.length ? `Key: ${action.keys.join(" or ")}` : "";
  action.button = made;
  return made;
}

function refresh() {
  for (const action of state.view?.actions ?? []) {
    if (!action.button) continue;
    action.button.disabled = Boolean(action.off?.());
    if (action.pressed) action.button.setAttribute("aria-pressed", action.pressed());
    action.button.firstChild.textContent = label(action);
  }
}

// After an undo, what was said before is marked.
function mark(view, undone) {
  if (!undone) return;
  announce("Taken back. Answer again.");
  const chosen = undone.kind === "best" ? undone.index
    : undone.kind === "ranking" && !undone.tie ? undone.order[0] : null;
  view.actions.forEach((action, number) => {
    const before = (chosen !== null && action.marks === chosen)
      || (undone.kind === "likert" && undone.level === number)
      || (undone.kind === "choice" && undone.index === number)
      || (undone.kind === "thumb" && Number(undone.up) === number)
      || (undone.tie && action.name === "Equal");
    action.button.classList.toggle("before", before);
  });
}

function run(action) {
  if (state.busy || action.off?.() || performance.now() - state.shownAt < SETTLE) return;
  action.run();
}

// Answers ----------------------------------------------------------------------------------------

async function give(said, replace = false) {
  if (state.busy || !state.query) return;
  const query = state.query;
  pauseClock();
  await busily(async () => {
    const body = { rater: state.rater, session: state.session, query: query.id, ticket: ticket(),
      seconds: Math.round(elapsed() * 1000) / 1000, label: said };
    if (replace) body.replace = true;
    try {
      const answer = await deliver("answer", body, waiting);
      memory.remove(draftName(query));
      tabs?.postMessage({ rater: state.rater, query: query.id });
      announce("Saved.");
      receive(answer);
      standing();
    } catch (error) {
      resumeClock();
      if (error.status !== 409) throw error;
      // Answered in another tab. What is written here stays until the rater decides.
      complain(error.message, choice("Keep that answer", () => next()),
        choice("Replace it with this one", () => give(said, true)));
    }
  });
}

async function undo() {
  await busily(async () => {
    const { query, undone } = await post("undo", { rater: state.rater });
    show(query, undone);
    standing();
  });
}

export async function next() {
  await busily(async () => receive(await post("next", { rater: state.rater })));
}

function receive({ query, writing, problem }) {
  if (query) {
    show(query);
    return;
  }
  leave();
  calm();
  state.query = null;
  delete main.dataset.query;
  const more = writing ? "The model is writing the next ones." : "This page looks for new ones by itself.";
  main.replaceChildren(el("div", { class: "empty" },
    el("h1", { tabindex: -1 }, writing ? "One moment" : "Nothing left to label"),
    el("p", {}, more), problem ? el("p", { class: "problem" }, problem) : null));
  bar.replaceChildren(el("div", { class: "aside" }, button({ name: "Undo", keys: ["u"], run: undo, tone: "quiet" })));
  main.dataset.ready = "empty";
  if (!writing) announce("Nothing left to label");
  state.timer = setTimeout(lookAgain, writing ? LOOK_AGAIN / 4 : LOOK_AGAIN);
}

async function lookAgain() {
  try {
    const found = await post("next", { rater: state.rater });
    if (!state.view && !state.busy) receive(found);
    standing();
  } catch (error) {
    complain(error.message);
    state.timer = setTimeout(lookAgain, LOOK_AGAIN);
  }
}

// One thing at a time; what goes wrong is said and nothing on the screen is lost.
async function busily(work) {
  if (state.busy) return;
  state.busy = true;
  bar.classList.add("busy");
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    complain(error.message, choice("Dismiss", calm));
  } finally {
    state.busy = false;
    bar.classList.remove("busy");
  }
}

// While the store cannot take a label: say so, wait, and let the rater give up.
function waiting(error) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), RETRY);
    complain(`Not saved yet. ${error.message} Trying again.`, choice("Stop trying", () => {
      clearTimeout(timer);
      resolve(true);
    }));
  });
}

const choice = (name, act) => el("button", { type: "button", class: "small", onclick: () => { calm(); act(); } }, name);

let asking = null;
function standing() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    try {
      showStanding(await post("standing", { rater: state.rater }));
    } catch { /* the figures are a courtesy; labels say aloud when something is wrong */ }
  }, 250);
}

// A text of one's own ----------------------------------------------------------------------------

function write() {
  if (state.busy) return;
  keepDraft();
  leave();
  calm();
  state.query = null;
  const name = `rlhf-gym.own.${state.rater}`;
  let view = null;
  const desk = { draft: memory.get(name), changed: () => { refresh(); memory.set(name, view.draft()); } };
  state.desk = desk;
  view = promptAndAnswer(desk, (prompt, completion) => busily(async () => {
    await deliver("write", { rater: state.rater, session: state.session, prompt, completion, ticket: ticket(),
      seconds: null }, waiting);
    memory.remove(name);
    announce("Saved.");
    standing();
    state.busy = false;
    write();
  }));
  put(view, []);
}

// Who labels -------------------------------------------------------------------------------------

function askName() {
  leave();
  state.query = null;
  const field = el("input", { type: "text", name: "rater", maxlength: 100, autocomplete: "nickname",
    required: true, value: state.rater, "aria-label": "Your name" });
  const form = el("form", { class: "welcome", onsubmit: (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    state.rater = field.value.trim();
    memory.set(RATER, state.rater);
    begin();
  } }, el("h1", {}, "Who is labelling?"),
  el("p", {}, "Your labels are kept under this name. Come back with the same one and you go on where you were."),
  field, el("button", { type: "submit", class: "main" }, "Begin", kbd("enter")));
  main.replaceChildren(form);
  main.dataset.ready = "name";
  field.focus();
}

async function begin() {
  await busily(async () => {
    const sent = await deliverLeftovers();
    const found = await post("begin", { rater: state.rater, client: navigator.userAgent });
    state.session = found.session;
    state.settings = found.settings;
    menu({ rater: state.rater, settings: found.settings, askName, write, help: openHelp, next });
    if (location.pathname === "/supervise") supervise(main, bar, state, { complain, announce });
    else receive(found);
    standing();
    if (sent) announce("An answer that was on its way is saved.");
  });
  if (state.session === null) state.timer = setTimeout(begin, LOOK_AGAIN);
}

const openHelp = () => help(state.settings.guidelines, state.view?.actions ?? []);

// Keys -------------------------------------------------------------------------------------------

function keyName(event) {
  const name = event.key.toLowerCase();
  return event.ctrlKey || event.metaKey ? `ctrl+${name}` : name;
}

addEventListener("keydown", (event) => {
  if (event.repeat || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const name = keyName(event), target = event.target;
  const typing = target.matches("textarea, input:not([type=range]), select");
  // Space and Enter on a focused button press that button, arrows in a slider move it.
  if (!name.startsWith("ctrl+") && target.matches("button, a, summary") && [" ", "enter"].includes(name)) return;
  if (typing && name === "escape") { target.blur(); return; }
  if (typing && name !== "ctrl+enter" && !(name === "enter" && target.matches("input[type=number]"))) return;
  if (target.matches("input[type=range]") && name.startsWith("arrow")) return;
  const view = state.view;
  const action = view?.actions.find(({ keys }) => keys.includes(name))
    ?? [...bar.querySelectorAll("button")].map((made) => asideActions(name, made)).find(Boolean);
  if (action) {
    event.preventDefault();
    run(action);
  } else if (view?.key && performance.now() - state.shownAt >= SETTLE && view.key(name)) {
    event.preventDefault();
  } else if (state.desk?.player && [" ", ",", "."].includes(name)) {
    event.preventDefault();
    if (name === " ") state.desk.player.toggle();
    else state.desk.player.move(name === "," ? -1 : 1);
  } else if (name === "?") {
    openHelp();
  } else if (name === "w" && state.session !== null && location.pathname === "/") {
    event.preventDefault();
    write();
  }
});

// Undo, Skip and Back are no answers of a view, but have keys as well.
function asideActions(name, made) {
  const known = { u: ["Undo", undo], "ctrl+z": ["Undo", undo], s: ["Skip", () => give({ kind: "skip" })],
    escape: ["Back", () => next()] }[name];
  return known && made.firstChild?.textContent === known[0] ? { run: known[1] } : null;
}

// Comings and goings -----------------------------------------------------------------------------

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    pauseClock();
    keepDraft();
  } else if (state.view) resumeClock();
});
addEventListener("pagehide", () => {
  keepDraft();
  if (state.session !== null) {
    const body = new Blob([JSON.stringify({ session: state.session })], { type: "application/json" });
    navigator.sendBeacon("/api/end", body);
  }
});

// Another tab of the same rater answered what is in front of them here.
const tabs = typeof BroadcastChannel === "function" ? new BroadcastChannel("rlhf-gym.labels") : null;
tabs?.addEventListener("message", ({ data }) => {
  if (data.rater !== state.rater || data.query !== state.query?.id || state.busy) return;
  if (state.view?.draft?.()) complain("You have answered this one in another tab.");
  else next();
});

if (state.rater) begin();
else askName();
