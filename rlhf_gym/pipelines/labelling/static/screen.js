// What is in front of the rater: a view, its buttons and keys, and what the page has to say.

import { el, kbd, released } from "./dom.js";

const SETTLE = 200;  // ms in which nobody can have read a new view: a bouncing key answers nothing

const main = document.getElementById("main"), bar = document.getElementById("bar");
const alertBox = document.getElementById("alert"), status = document.getElementById("status");

// `view` is as kinds.js describes, `aside` are more actions, `always` those of every view; `busy` while
// a request is on its way.
export const screen = { view: null, aside: [], player: null, busy: false, shownAt: 0, always: [] };

// What the page says -----------------------------------------------------------------------------

export function complain(problem, ...more) {
  alertBox.replaceChildren(el("span", {}, problem), ...more);
  alertBox.hidden = false;
}

export function calm() {
  alertBox.hidden = true;
  alertBox.replaceChildren();
}

export function choice(name, act) {
  return el("button", { type: "button", class: "small", onclick: () => { calm(); act(); } }, name);
}

export const announce = (text) => { status.textContent = text; };

// Views ------------------------------------------------------------------------------------------

export function clear() {
  screen.player?.stop();
  Object.assign(screen, { view: null, aside: [], player: null });
  delete main.dataset.ready;
  delete main.dataset.query;
  delete main.dataset.question;
  bar.replaceChildren();
}

// `ready` names the view once it takes answers; tests wait for it.
export function put(view, { before = [], aside = [], player = null, ready }) {
  Object.assign(screen, { view, aside, player });
  const title = el("h1", { tabindex: -1 }, view.title);
  main.replaceChildren(title, ...before, ...view.body);
  const answers = view.actions.map(button);
  if (view.scale) {
    answers.unshift(el("span", { class: "faint small" }, view.scale[0]));
    answers.push(el("span", { class: "faint small" }, view.scale[1]));
  }
  bar.replaceChildren(el("div", { class: "aside" }, aside.map(button)),
    el("div", { class: view.scale ? "answers scale" : "answers", role: "group", "aria-label": "Answers" }, answers));
  view.start?.();
  refresh();
  scrollTo(0, 0);
  (view.focus ?? title).focus({ preventScroll: true });
  announce(view.title);
  screen.shownAt = performance.now();
  setTimeout(() => { if (screen.view === view) main.dataset.ready = ready; }, SETTLE);
}

const label = (action) => (typeof action.name === "function" ? action.name() : action.name);

function button(action) {
  const key = action.keys[0];
  action.button = el("button", { type: "button", class: action.tone ?? "", "aria-label": action.spoken,
    title: key ? `Key: ${action.keys.join(" or ")}` : null, onclick: released(() => run(action)) },
  el("span", { dir: "auto", class: action.given && "given" }, label(action)),
  // A key that is the button's name, or its first word, need not be shown again.
  key && label(action).split(" ")[0] !== key ? kbd(key) : null);
  return action.button;
}

export function refresh() {
  for (const action of screen.view?.actions ?? []) {
    if (!action.button) continue;
    action.button.disabled = Boolean(action.off?.());
    if (action.pressed) action.button.setAttribute("aria-pressed", action.pressed());
    action.button.firstChild.textContent = label(action);
  }
}

const settled = () => performance.now() - screen.shownAt >= SETTLE;

function run(action) {
  if (!screen.busy && !action.off?.() && settled()) action.run();
}

// One thing at a time; what goes wrong is said, and nothing on the screen is lost.
export async function busily(work, expected) {
  if (screen.busy) return;
  screen.busy = true;
  bar.classList.add("busy");
  try {
    await work();
  } catch (error) {
    if (!(error instanceof expected)) throw error;
    complain(error.message, choice("Dismiss", calm));
  } finally {
    screen.busy = false;
    bar.classList.remove("busy");
  }
}

// Keys -------------------------------------------------------------------------------------------

function keyName(event) {
  const name = event.key.toLowerCase();
  return event.ctrlKey || event.metaKey ? `ctrl+${name}` : name;
}

// Keys that the focused element needs for itself.
function belongsToTarget(name, target) {
  if (target.matches("textarea, select, input:not([type=range])")) {
    return name !== "ctrl+enter" && !(name === "enter" && target.matches("input[type=number]"));
  }
  if (target.matches("button, a")) return name === " " || name === "enter";
  return target.matches("input[type=range]") && name.startsWith("arrow");
}

addEventListener("keydown", (event) => {
  if (event.repeat || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const name = keyName(event), target = event.target;
  if (belongsToTarget(name, target)) {
    if (name === "escape") target.blur();
    return;
  }
  const { view, aside, always, player } = screen;
  const action = [...(view?.actions ?? []), ...aside].find(({ keys }) => keys.includes(name));
  const general = always.find(({ keys }) => keys.includes(name));
  if (action) run(action);
  else if (general) general.run();
  else if (view?.key && settled() && !screen.busy && view.key(name)) { /* the view took it */ }
  else if (player && name === " ") player.toggle();
  else if (player && (name === "," || name === ".")) player.move(name === "," ? -1 : 1);
  else return;
  event.preventDefault();
});

// The time that a view was really before somebody's eyes -----------------------------------------

const clock = { since: null, total: 0 };

export function startClock(seconds = 0) {
  clock.total = seconds * 1000;
  clock.since = document.hidden ? null : performance.now();
}

export function pauseClock() {
  if (clock.since !== null) clock.total += performance.now() - clock.since;
  clock.since = null;
}

export function resumeClock() {
  if (clock.since === null && !document.hidden) clock.since = performance.now();
}

export function elapsed() {
  const running = clock.since === null ? 0 : performance.now() - clock.since;
  return Math.round(clock.total + running) / 1000;
}
