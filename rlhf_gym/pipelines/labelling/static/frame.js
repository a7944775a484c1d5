// What stands around a query: menu, progress, figures, help.

import { el, kbd, plainMarkdown } from "./dom.js";
import { memory } from "./net.js";

const THEME = "rlhf-gym.theme";
const READ = "rlhf-gym.guidelines-read";
const THEMES = ["auto", "light", "dark"];

const GUIDELINES = `Read the prompt and every answer to the end before you judge.

- Prefer what is true, helpful and harmless over what is long or well phrased.
- If you see no difference that matters, say that they are equal.
- If you cannot judge, skip: a guess teaches the wrong thing.`;

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}
theme(memory.get(THEME, "auto"));

const face = (name) => ({ auto: "\u25d0", light: "\u25cb", dark: "\u25cf" })[name];

export function menu({ rater, settings, supervising, askName, write, help }) {
  const look = el("button", { type: "button", class: "quiet small", onclick: () => {
    const name = THEMES[(THEMES.indexOf(memory.get(THEME, "auto")) + 1) % THEMES.length];
    memory.set(THEME, name);
    theme(name);
    look.textContent = face(name);
    look.setAttribute("aria-label", `Colours: ${name}`);
    look.title = `Colours: ${name}`;
  } });
  const name = memory.get(THEME, "auto");
  look.textContent = face(name);
  look.setAttribute("aria-label", `Colours: ${name}`);
  look.title = `Colours: ${name}`;
  const other = supervising ? el("a", { class: "button quiet small", href: "/" }, "Label")
    : settings.supervised ? el("a", { class: "button quiet small", href: "/supervise" }, "Teach") : null;
  document.getElementById("menu").replaceChildren(...[
    other,
    supervising ? null : el("button", { type: "button", class: "quiet small", onclick: write }, "Write", kbd("w")),
    el("button", { type: "button", class: "quiet small", onclick: help }, "Help", kbd("?")),
    look,
    el("button", { type: "button", class: "quiet small rater", onclick: askName, title: "Change the name" },
      el("bdi", {}, rater)),
  ].filter(Boolean));
}

export function showStanding({ labels, skips, open, seconds, agreement, gold }) {
  const progress = document.getElementById("progress");
  const total = labels + open;
  progress.hidden = total === 0;
  progress.querySelector(".fill").style.width = `${total ? (100 * labels) / total : 0}%`;
  const percent = ({ value }) => `${Math.round(100 * value)} %`;
  const range = ({ low, high }) => `95 % interval ${Math.round(100 * low)} to ${Math.round(100 * high)} %`;
  const figure = (text, title) => el("span", { class: "figure", title }, text);
  progress.querySelector(".count").replaceChildren(...[
    figure(`${labels} done`, skips ? `${skips} of them skipped` : ""),
    figure(`${open} left`, "for you"),
    seconds === null ? null : figure(`${seconds.toFixed(1)} s each`, "median time of an answer"),
    agreement ? figure(`agreement ${percent(agreement)}`,
      `share of other raters' answers that are the same as yours, ${range(agreement)}`) : null,
    gold ? figure(`known answers ${percent(gold)}`,
      `share of questions with a known answer that you got right, ${range(gold)}`) : null,
  ].filter(Boolean));
}

// What raters are told is in front of them once, and then behind a key.
export function showGuidelinesOnce(guidelines, open) {
  if (!guidelines || memory.get(READ) === guidelines) return;
  memory.set(READ, guidelines);
  open();
}

export function help(guidelines, actions) {
  const names = actions.filter(({ keys }) => keys.length).map((action) => [
    typeof action.name === "function" ? action.name() : action.spoken ?? action.name, action.keys]);
  const keys = [...names, ["Undo the last answer", ["u"]], ["Skip", ["s"]], ["Write a text of your own", ["w"]],
    ["Clips: play or pause, step", [" ", ",", "."]], ["Out of a text field", ["escape"]], ["This help", ["?"]]];
  const box = el("dialog", { class: "help", "aria-label": "Guidelines and keys", onclose: () => box.remove(),
    onclick: (event) => { if (event.target === box) box.close(); } },
  el("div", { class: "columns" },
    el("section", {}, el("h2", {}, "Guidelines"), ...plainMarkdown(guidelines || GUIDELINES)),
    el("section", {}, el("h2", {}, "Keys"), el("dl", {}, keys.flatMap(([name, list]) => [
      el("dt", {}, list.flatMap((key) => [kbd(key), " "])), el("dd", { dir: "auto" }, name)])))),
  el("form", { method: "dialog" }, el("button", { class: "main", autofocus: true }, "Close", kbd("escape"))));
  document.body.append(box);
  box.showModal();
}
