// How each question is shown and answered. A kind gives:
//   title     what is asked
//   body      nodes between the prompt and the actions
//   actions   buttons: { name, keys, run, tone, off(), given }; a key alone does what its button does, and a
//             name that was given with the query is shown as it is
//   key       optional, sees keys that no action takes
//   draft     optional, what is to be kept when the page is left before answering
// `desk` gives send(label), changed() after the rater did something, draft, settings, undone.

import { el, kbd, prose } from "./dom.js";
import { Player } from "./clips.js";
import { ranking } from "./ranking.js";
import { demonstration, edit, review } from "./writing.js";

export const kinds = {
  ranking: (query, desk) => (query.segments.length === 2 ? pair(query, desk) : ranking(query, desk, cards)),
  best, thumb, likert, rating, choice, edit, demonstration, review,
};

// Cards with the segments of a query, in the order of the screen.
export function cards(query, desk, names, foot = () => null) {
  let player = null;
  const made = query.segments.map((segment, number) => {
    const name = names[number];
    const heading = name ? el("h2", { class: "name" }, name) : null;
    let content;
    if (segment.kind === "clip") {
      player ??= new Player(desk.settings.frames_per_second);
      content = player.add(segment, name || "Clip");
    } else {
      content = prose(segment.text, segment.kind === "numbers" ? "numbers" : "answer");
      content.tabIndex = 0;  // a long one is scrolled with the keyboard
      content.setAttribute("role", "group");
      content.setAttribute("aria-label", name || "Answer");
    }
    return el("article", { class: "card", "data-place": segment.place }, heading, content, foot(number));
  });
  desk.player = player;
  return made;
}

const row = (made) => el("div", { class: `cards of-${made.length}` }, made);
const controls = (desk) => (desk.player ? [desk.player.controls()] : []);
const numbered = (count, what = "Answer") => Array.from({ length: count }, (_, i) => `${what} ${i + 1}`);
const what = (query) => (query.segments[0].kind === "text" ? "answer" : "clip");
const Name = (query) => (what(query) === "answer" ? "Answer" : "Clip");

function pair(query, desk) {
  const places = query.segments.map(({ place }) => place);
  const say = (order, tie = false) => desk.send({ kind: "ranking", order, tie });
  return {
    title: `Which ${what(query)} is better?`,
    body: [row(cards(query, desk, numbered(2, Name(query)))), ...controls(desk)],
    actions: [
      { name: "1 is better", keys: ["arrowleft", "1"], run: () => say(places), tone: "main", marks: places[0] },
      { name: "Equal", keys: ["t", "="], run: () => say([0, 1], true) },
      { name: "2 is better", keys: ["arrowright", "2"], run: () => say([places[1], places[0]]), tone: "main",
        marks: places[1] },
    ],
  };
}

function best(query, desk) {
  const made = cards(query, desk, numbered(query.segments.length, Name(query)));
  return {
    title: `Which ${what(query)} is best?`,
    body: [row(made), ...controls(desk)],
    actions: query.segments.map(({ place }, number) => ({
      name: `${number + 1} is best`, spoken: `${Name(query)} ${number + 1} is best`, keys: [`${number + 1}`],
      run: () => desk.send({ kind: "best", index: place }), tone: "main", marks: place,
    })),
  };
}

function one(query, desk) {
  return [row(cards(query, desk, [""])), ...controls(desk)];
}

function thumb(query, desk) {
  return {
    title: `Is this ${what(query)} good?`,
    body: one(query, desk),
    actions: [
      { name: "Bad", keys: ["arrowdown", "b"], run: () => desk.send({ kind: "thumb", up: false }), tone: "bad" },
      { name: "Good", keys: ["arrowup", "g"], run: () => desk.send({ kind: "thumb", up: true }), tone: "good" },
    ],
  };
}

function likert(query, desk) {
  return {
    title: `How good is this ${what(query)}?`,
    body: one(query, desk),
    scale: ["worst", "best"],
    actions: Array.from({ length: query.levels }, (_, level) => ({
      name: `${level + 1}`, spoken: `${level + 1} of ${query.levels}`,
      keys: level < 9 ? [`${level + 1}`] : level === 9 ? ["0"] : [],
      run: () => desk.send({ kind: "likert", level }), tone: "main",
    })),
  };
}

function choice(query, desk) {
  return {
    title: "Which of these is right?",
    body: one(query, desk),
    actions: query.choices.map((name, index) => ({
      name, given: true, keys: index < 9 ? [`${index + 1}`] : [], run: () => desk.send({ kind: "choice", index }), tone: "main",
    })),
  };
}

function rating(query, desk) {
  const { lowest, highest } = desk.settings;
  const step = (highest - lowest) / 100;
  let value = desk.draft?.value ?? (desk.undone?.kind === "rating" ? desk.undone.value : null);
  const slider = el("input", { type: "range", min: lowest, max: highest, step, "aria-label": "Rating" });
  const number = el("input", { type: "number", min: lowest, max: highest, step: "any", "aria-label": "Rating",
    inputmode: "decimal" });
  const set = (given) => {
    value = given;
    const known = value !== null;
    slider.value = known ? value : (lowest + highest) / 2;
    slider.classList.toggle("unset", !known);
    if (document.activeElement !== number) number.value = known ? Number(value.toFixed(4)) : "";
  };
  const inside = (given) => Math.min(highest, Math.max(lowest, given));
  slider.addEventListener("input", () => { set(Number(slider.value)); desk.changed(); });
  number.addEventListener("input", () => {
    const given = number.value === "" ? NaN : Number(number.value);
    set(given >= lowest && given <= highest ? given : null);
    desk.changed();
  });
  set(value);
  return {
    title: `How good is this ${what(query)}?`,
    body: [...one(query, desk),
      el("div", { class: "rating" }, el("span", {}, `${lowest}`), slider, el("span", {}, `${highest}`), number),
      el("p", { class: "faint small keys-only" }, "Keys 0 to 9 choose tenths of the range, ", kbd("arrowleft"), " ",
        kbd("arrowright"), " go a little.")],
    actions: [{ name: "Save", keys: ["enter"], run: () => desk.send({ kind: "rating", value }), tone: "main",
      off: () => value === null }],
    key: (name) => {
      const tenth = (highest - lowest) / 10;
      if (/^\d$/.test(name)) set(inside(lowest + Number(name) * tenth));
      else if (name === "arrowleft" || name === "arrowright") {
        const sign = name === "arrowleft" ? -1 : 1;
        set(inside((value ?? (lowest + highest) / 2) + (sign * tenth) / 2));
      } else return false;
      desk.changed();
      return true;
    },
    draft: () => (value === null ? null : { value }),
  };
}
