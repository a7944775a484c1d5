// Live supervision: the agent acts, the rater rewards or punishes what it did.

import { el, kbd } from "./dom.js";
import { deliver, post, Refused, ticket } from "./net.js";
import { announce, complain } from "./screen.js";

const REACTION = 250;  // ms before which nobody can have reacted: the signal is about the step before
const SPEEDS = [0.5, 1, 2, 4];  // steps a second

export function supervise(main, bar, state) {
  const picture = el("img", { class: "scene", alt: "What the agent did" });
  const caption = el("p", { class: "faint small" });
  const tally = el("p", { class: "tally", role: "status" });
  const trail = el("div", { class: "trail", "aria-hidden": "true" });
  let playing = false, timer = null, speed = 1, current = null, previous = null, praised = 0, blamed = 0;

  const play = el("button", { type: "button", class: "quiet", onclick: () => toggle() }, el("span", {}, "Start"),
    kbd(" "));
  const pace = el("select", { "aria-label": "Steps a second", onchange: () => { speed = Number(pace.value); } },
    SPEEDS.map((value) => el("option", { value, selected: value === speed }, `${value} a second`)));
  const punish = el("button", { type: "button", class: "bad", onclick: () => signal(-1) },
    el("span", {}, "Punish"), kbd("arrowdown"));
  const reward = el("button", { type: "button", class: "good", onclick: () => signal(1) },
    el("span", {}, "Reward"), kbd("arrowup"));

  main.replaceChildren(el("h1", { tabindex: -1 }, "Teach the agent"),
    el("p", { class: "faint" }, "It tries to do what you reward. Say what you think of each step while it acts; ",
      "every signal is kept, and the agent learns from it at once."),
    el("div", { class: "stage" }, picture, trail), caption, tally);
  bar.replaceChildren(el("div", { class: "aside" }, play, pace), el("div", { class: "answers" }, punish, reward));
  main.dataset.ready = "supervise";
  count();

  function toggle(wanted = !playing) {
    playing = wanted;
    play.firstChild.textContent = playing ? "Pause" : "Go on";
    clearTimeout(timer);
    if (playing) step();
  }

  async function step() {
    const begun = performance.now();
    try {
      const done = await post("supervise", { rater: state.rater });
      previous = current;
      current = { ...done, at: performance.now() };
      picture.src = done.picture;
      caption.textContent = `Episode ${done.episode + 1}, step ${done.step}${done.ended ? ": the end" : ""}`;
      main.dataset.step = done.step;
      mark(done.step, "");
      count(done.signals);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      toggle(false);
      complain(error.message);
      return;
    }
    if (playing) timer = setTimeout(step, Math.max(0, 1000 / speed - (performance.now() - begun)));
  }

  async function signal(value) {
    if (!current) return;
    const early = playing && previous && performance.now() - current.at < REACTION;
    const about = early ? previous : current;
    mark(about.step, value > 0 ? "up" : "down");
    try {
      const kept = await deliver("reward", { rater: state.rater, session: state.session, step: about.step, value,
        ticket: ticket() }, () => new Promise((again) => { setTimeout(() => again(false), 1000); }));
      if (value > 0) praised += 1;
      else blamed += 1;
      count(kept.signals);
      main.dataset.kept = praised + blamed;
      announce(value > 0 ? "Rewarded" : "Punished");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      mark(about.step, "");
      complain(error.message);
    }
  }

  function mark(number, kind) {
    let dot = trail.querySelector(`[data-step="${number}"]`);
    if (!dot) {
      dot = el("i", { "data-step": number });
      trail.append(dot);
      while (trail.children.length > 40) trail.firstChild.remove();
    }
    dot.className = kind;
  }

  function count(signals = 0) {
    const many = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
    tally.textContent = `${many(praised, "reward")} and ${many(blamed, "punishment")} now; `
      + `the agent has learned from ${many(signals, "signal")} in all.`;
  }

  addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")
      || event.target.matches("input, select, textarea")) return;
    const name = event.key.toLowerCase();
    const act = { arrowup: () => signal(1), r: () => signal(1), arrowdown: () => signal(-1), p: () => signal(-1),
      " ": () => toggle() }[name];
    if (!act || (name === " " && event.target.matches("button, a"))) return;
    event.preventDefault();
    act();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden && playing) toggle(false); });
}
