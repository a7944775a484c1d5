// Questions that are answered with a text.

import { el, prose } from "./dom.js";
import { shownDifference } from "./diff.js";

const QUICK = 20_000;  // characters whose difference is shown with every key
const PAUSE = 400;     // ms without a key after which a longer one is

function area(label, value, changed, rows = 5) {
  const field = el("textarea", { rows, dir: "auto", spellcheck: value.length < QUICK ? "true" : "false", value, "aria-label": label });
  field.addEventListener("input", () => changed(field));
  return [el("label", { class: "field" }, el("span", {}, label), field), field];
}

// What is changed in a text so far: `box` shows it, `now` and `soon` are told the text as it is.
function changesOf(before) {
  const box = el("div", { class: "prose difference", dir: "auto", "aria-label": "What is changed" });
  let timer = null;
  const now = (text) => box.replaceChildren(...(text === before
    ? [el("span", { class: "faint" }, "Nothing is changed yet.")]
    : shownDifference(before, text)));
  const soon = (text) => {
    clearTimeout(timer);
    if (before.length + text.length < QUICK) now(text);
    else timer = setTimeout(now, PAUSE, text);
  };
  return { box, now, soon };
}

const shownBefore = (label) => el("div", { class: "card" }, el("h2", { class: "name" }, label));

export function edit(query, desk) {
  const before = query.segments[0].text;
  const said = desk.undone?.kind === "edit" ? desk.undone.completion : null;
  const changes = changesOf(before);
  const [label, field] = area("The answer as it should be", desk.draft?.text ?? said ?? before, () => {
    changes.soon(field.value);
    desk.changed();
  }, 8);
  changes.now(field.value);
  const box = shownBefore("Changes");
  box.append(changes.box);
  return {
    title: "Rewrite the answer as it should be",
    body: [label, box],
    actions: [{
      name: () => (field.value === before ? "It is right as it is" : "Save"), keys: ["ctrl+enter"], tone: "main",
      off: () => !field.value.trim(), run: () => desk.send({ kind: "edit", completion: field.value }),
    }],
    draft: () => (field.value === before ? null : { text: field.value }),
    focus: field,
  };
}

export function demonstration(query, desk) {
  return query.prompt ? answerTo(query, desk) : promptAndAnswer(desk, (prompt, completion) =>
    desk.send({ kind: "demonstration", completion, prompt }));
}

function answerTo(query, desk) {
  const said = desk.undone?.kind === "demonstration" ? desk.undone.completion : "";
  const [label, field] = area("Your answer", desk.draft?.text ?? said, desk.changed, 8);
  return {
    title: "Write the answer",
    body: [label],
    actions: [{ name: "Save", keys: ["ctrl+enter"], tone: "main", off: () => !field.value.trim(),
      run: () => desk.send({ kind: "demonstration", completion: field.value }) }],
    draft: () => (field.value ? { text: field.value } : null),
    focus: field,
  };
}

// Also the view behind "Write your own".
export function promptAndAnswer(desk, save) {
  const said = desk.undone?.kind === "demonstration" ? desk.undone : null;
  const [promptLabel, prompt] = area("Prompt", desk.draft?.prompt ?? said?.prompt ?? "", desk.changed, 3);
  const [answerLabel, answer] = area("Answer (leave it empty to hand in the prompt alone)",
    desk.draft?.text ?? said?.completion ?? "", desk.changed, 7);
  return {
    title: "Write a prompt, and an answer if you have one",
    body: [promptLabel, answerLabel],
    actions: [{ name: () => (answer.value.trim() ? "Save prompt and answer" : "Save the prompt alone"),
      keys: ["ctrl+enter"], tone: "main", off: () => !prompt.value.trim(),
      run: () => save(prompt.value, answer.value.trim() ? answer.value : "") }],
    draft: () => (prompt.value || answer.value ? { prompt: prompt.value, text: answer.value } : null),
    focus: prompt,
  };
}

export function review(query, desk) {
  const before = query.segments[0].text;
  const reasons = new Set(desk.draft?.reasons ?? (desk.undone?.kind === "flag" ? desk.undone.reasons : []));
  const said = desk.undone?.kind === "edit" ? desk.undone.completion : null;
  let editing = desk.draft?.text ?? said ?? null;
  const place = el("div");
  let field = null;

  function show() {
    if (editing === null) {
      const box = shownBefore("Demonstration");
      box.append(prose(before, "answer"));
      place.replaceChildren(box);
      field = null;
    } else {
      const changes = changesOf(before);
      const [label, made] = area("The demonstration as it should be", editing, () => {
        editing = field.value;
        changes.soon(editing);
        desk.changed();
      }, 8);
      changes.now(editing);
      field = made;
      place.replaceChildren(label, el("div", { class: "card" }, changes.box));
    }
  }

  const flag = (reason, key) => ({
    name: reason, keys: [key], pressed: () => reasons.has(reason),
    run: () => {
      if (!reasons.delete(reason)) reasons.add(reason);
      desk.changed();
    },
  });
  show();
  return {
    title: "Is this demonstration good enough to learn from?",
    body: [place],
    actions: [
      flag("inaccurate", "i"), flag("toxic", "x"), flag("biased", "b"),
      { name: () => (editing === null ? "Edit" : "Do not edit"), keys: ["e"],
        run: () => {
          editing = editing === null ? before : null;
          show();
          desk.changed();
          field?.focus();
        } },
      { name: () => (reasons.size ? "Save the flag" : editing === null ? "Accept" : "Save the edit"),
        keys: ["a", "enter", "ctrl+enter"], tone: "main",
        off: () => !reasons.size && editing !== null && (!editing.trim() || editing === before),
        run: () => desk.send(reasons.size ? { kind: "flag", reasons: [...reasons] }
          : editing === null ? { kind: "accept" } : { kind: "edit", completion: editing }) },
    ],
    draft: () => (reasons.size || editing !== null ? { reasons: [...reasons], text: editing } : null),
  };
}
