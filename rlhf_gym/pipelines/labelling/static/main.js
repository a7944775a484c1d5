// The page: who labels, what they are asked, what they said, and that it is kept.

import { el, kbd, prose } from "./dom.js";
import { help, menu, showGuidelinesOnce, showStanding } from "./frame.js";
import { kinds } from "./kinds.js";
import { deliver, deliverLeftovers, memory, post, Refused, ticket } from "./net.js";
import {
  announce, busily, calm, choice, clear, complain, elapsed, pauseClock, put, refresh, resumeClock, screen, startClock,
} from "./screen.js";
import { supervise } from "./supervise.js";
import { promptAndAnswer } from "./writing.js";

const RATER = "rlhf-gym.rater";
const LOOK_AGAIN = 2000;  // ms between looks for new queries
const RETRY = 1500;  // ms between attempts while the store is busy

const main = document.getElementById("main"), bar = document.getElementById("bar");

const state = { rater: memory.get(RATER, ""), session: null, settings: {}, query: null, timer: null, asking: null };

const safely = (work) => busily(work, Refused);

// Queries ----------------------------------------------------------------------------------------

const draftName = (query) => `rlhf-gym.draft.${state.rater}.${query.key}`;

function keepDraft() {
  if (!state.query) return;
  const draft = screen.view.draft?.() ?? null;
  if (draft === null) memory.remove(draftName(state.query));
  else memory.set(draftName(state.query), { draft, seconds: elapsed() });
}

function leave() {
  clear();
  calm();
  clearTimeout(state.timer);
  state.query = null;
}

function show(query, undone = null) {
  leave();
  const kept = memory.get(draftName(query));
  const desk = { settings: state.settings, draft: kept?.draft, undone, player: null, send: (label) => give(label),
    changed: () => {
      refresh();
      keepDraft();
    } };
  const view = kinds[query.question](query, desk);
  state.query = query;
  startClock(kept?.seconds);
  const prompt = query.prompt ? [el("section", { class: "prompt", "aria-label": "Prompt" },
    el("h2", { class: "name" }, "Prompt"), prose(query.prompt))] : [];
  put(view, { before: prompt, player: desk.player, ready: query.id, aside: [undoing,
    { name: "Skip", keys: ["s"], tone: "quiet", run: () => give({ kind: "skip" }) }] });
  if (undone) mark(view, undone);
  main.dataset.query = query.id;
  main.dataset.question = query.question;
}

// After an undo, what was said before is marked.
function mark(view, undone) {
  announce("Taken back. Answer again.");
  const chosen = undone.kind === "best" ? undone.index
    : undone.kind === "ranking" && !undone.tie ? undone.order[0] : null;
  view.actions.forEach((action, number) => {
    const before = (chosen !== null && action.marks === chosen)
      || (undone.kind === "likert" && undone.level === number)
      || (undone.kind === "choice" && undone.index === number)
      || (undone.kind === "thumb" && Number(undone.up) === number)
      || (undone.tie && action.name === "Equal");
    action.button.classList.toggle("before", Boolean(before));
  });
}

function receive({ query, writing, problem }) {
  if (query) {
    show(query);
    return;
  }
  leave();
  const title = writing ? "One moment" : "Nothing left to label";
  const more = writing ? "The model is writing the next ones." : "This page looks for new ones by itself.";
  const view = { title, actions: [], body: [el("p", {}, more), problem ? el("p", { class: "problem" }, problem) : ""] };
  put(view, { aside: [undoing], ready: "empty" });
  main.replaceChildren(el("div", { class: "empty" }, ...main.childNodes));
  state.timer = setTimeout(lookAgain, writing ? LOOK_AGAIN / 4 : LOOK_AGAIN);
}

async function lookAgain() {
  try {
    const found = await post("next", { rater: state.rater });
    if (screen.busy || state.query || main.dataset.ready === "own") return;
    if (found.query) receive(found);
    else if (found.writing || found.problem) receive(found);
    else state.timer = setTimeout(lookAgain, LOOK_AGAIN);
    standing();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    complain(error.message);
    state.timer = setTimeout(lookAgain, LOOK_AGAIN);
  }
}

export const next = () => safely(async () => receive(await post("next", { rater: state.rater })));

// Answers ----------------------------------------------------------------------------------------

function give(said, replace = false) {
  const query = state.query;
  if (!query) return;
  pauseClock();
  safely(async () => {
    const body = { rater: state.rater, session: state.session, query: query.id, key: query.key, ticket: ticket(),
      seconds: elapsed(), label: said, ...(replace ? { replace } : {}) };
    try {
      const answer = await deliver("answer", body, waiting);
      memory.remove(draftName(query));
      tabs?.postMessage({ rater: state.rater, query: query.id });
      receive(answer);
      announce(`Saved. ${main.querySelector("h1").textContent}`);
      standing();
    } catch (error) {
      resumeClock();
      if (error.status !== 409) throw error;
      // Answered in another tab. What is written here stays until the rater decides.
      complain(error.message, choice("Keep that answer", next),
        choice("Replace it with this one", () => give(said, true)));
    }
  });
}

const undoing = { name: "Undo", keys: ["u", "ctrl+z"], tone: "quiet", run: () => safely(async () => {
  const { query, undone } = await post("undo", { rater: state.rater });
  show(query, undone);
  standing();
}) };

// While the store cannot take a label: say so, wait, and let the rater give up.
function waiting(error) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), RETRY);
    complain(`Not saved yet, the page goes on trying. ${error.message}`, choice("Stop trying", () => {
      clearTimeout(timer);
      resolve(true);
    }));
  });
}

function standing() {
  clearTimeout(state.asking);
  state.asking = setTimeout(async () => {
    try {
      showStanding(await post("standing", { rater: state.rater }));
    } catch { /* the figures are a courtesy; answers say aloud when something is wrong */ }
  }, 250);
}

// A text of one's own ----------------------------------------------------------------------------

function write() {
  if (!screen.busy) compose();
}

function compose() {
  keepDraft();
  leave();
  const name = `rlhf-gym.own.${state.rater}`;
  const desk = { draft: memory.get(name), changed: () => {
    refresh();
    memory.set(name, view.draft());
  } };
  const view = promptAndAnswer(desk, (prompt, completion) => safely(async () => {
    const body = { rater: state.rater, session: state.session, prompt, completion, ticket: ticket(), seconds: elapsed() };
    await deliver("write", body, waiting);
    memory.remove(name);
    compose();
    announce("Saved. Write another, or go back.");
    standing();
  }));
  startClock();
  put(view, { aside: [{ name: "Back", keys: ["escape"], tone: "quiet", run: next }], ready: "own" });
}

// Who labels -------------------------------------------------------------------------------------

function askName() {
  leave();
  const field = el("input", { type: "text", name: "rater", maxlength: 100, autocomplete: "nickname",
    required: true, value: state.rater, "aria-label": "Your name" });
  main.replaceChildren(el("form", { class: "welcome", onsubmit: (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    memory.set(RATER, field.value.trim());
    state.rater = field.value.trim();
    if (state.session === null) begin();
    else location.reload();  // another rater begins with nothing of the one before
  } }, el("h1", {}, "Who is labelling?"),
  el("p", {}, "Your labels are kept under this name. Come back with the same one and you go on where you were."),
  field, el("button", { type: "submit", class: "main" }, "Begin", kbd("enter"))));
  main.dataset.ready = "name";
  field.focus();
}

async function begin() {
  await safely(async () => {
    const sent = await deliverLeftovers();
    const found = await post("begin", { rater: state.rater, client: navigator.userAgent });
    Object.assign(state, { session: found.session, settings: found.settings });
    const supervising = location.pathname === "/supervise";
    const openHelp = () => help(state.settings.guidelines, screen.view?.actions ?? []);
    menu({ rater: state.rater, settings: found.settings, supervising, askName, write, help: openHelp });
    screen.always = [{ keys: ["?"], run: openHelp }, ...(supervising ? [] : [{ keys: ["w"], run: write }])];
    if (supervising) supervise(main, bar, state);
    else receive(found);
    showGuidelinesOnce(found.settings.guidelines, openHelp);
    standing();
    if (sent) announce("An answer that was on its way is saved.");
  });
  if (state.session === null) state.timer = setTimeout(begin, LOOK_AGAIN);
}

// Comings and goings -----------------------------------------------------------------------------

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    pauseClock();
    keepDraft();
  } else if (state.query && !screen.busy) resumeClock();
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
  if (data.rater !== state.rater || data.query !== state.query?.id || screen.busy) return;
  if (screen.view.draft?.()) complain("You have answered this one in another tab.");
  else next();
});

if (state.rater) begin();
else askName();
