// Ranking of three or more: by number keys, by dragging, by clicking, by arrow keys.

import { el, kbd, released } from "./dom.js";

export function ranking(query, desk, cards) {
  const count = query.segments.length;
  const names = query.segments.map((_, number) => `${number + 1}`);
  const made = cards(query, desk, names.map(() => ""));
  const list = el("ol", { class: "ranking", "aria-label": "From best to worst" });

  // `order` holds numbers on the screen, the best first; only the first `placed` are decided.
  const begun = desk.draft ?? from(desk.undone, query);
  let order = begun?.order ?? names.map((_, number) => number);
  let placed = begun?.placed ?? 0;

  const items = made.map((card, number) => {
    const badge = el("button", { type: "button", class: "badge", onclick: released(() => toggle(number)) });
    const grip = el("span", { class: "grip", "aria-hidden": "true" }, "\u2807");
    const item = el("li", { tabindex: 0, "data-number": number + 1 },
      el("div", { class: "side" }, badge, grip), card);
    item.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step || event.target !== item || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.altKey || event.shiftKey) move(number, order.indexOf(number) + step);
      else items[order[order.indexOf(number) + step]]?.focus();
      if (event.altKey || event.shiftKey) item.focus();
    });
    draggable(item, grip, number);
    return item;
  });

  function toggle(number) {
    const place = order.indexOf(number);
    // The last one was placed by itself; whoever presses its number too means the same.
    if (placed === count && place === count - 1) return;
    order.splice(place, 1);
    if (place < placed) {
      placed -= 1;
      order.splice(placed, 0, number);
    } else {
      order.splice(placed, 0, number);
      placed += 1;
      if (placed === count - 1) placed = count;  // the last one has only one place left
    }
    show();
  }

  function move(number, place) {
    if (place < 0 || place >= count) return;
    order.splice(order.indexOf(number), 1);
    order.splice(place, 0, number);
    placed = count;
    show();
  }

  function show() {
    const focused = document.activeElement;
    order.forEach((number, place) => {
      const item = items[number];
      // Moving an element makes it lose its focus and its scroll: only those that must move do.
      if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
      const decided = place < placed;
      item.classList.toggle("decided", decided);
      const badge = item.querySelector(".badge");
      badge.replaceChildren(decided ? el("strong", {}, ordinal(place + 1)) : el("span", {}, "rank"),
        kbd(names[number]));
      badge.setAttribute("aria-label", decided
        ? `Answer ${names[number]}, ${ordinal(place + 1)}. Take it out of the ranking`
        : `Answer ${names[number]}, not ranked. Rank it ${ordinal(placed + 1)}`);
    });
    if (list.contains(focused) && document.activeElement !== focused) focused.focus();
    desk.changed();
  }

  function draggable(item, grip, number) {
    grip.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      grip.setPointerCapture(event.pointerId);
      item.classList.add("dragged");
      let moved = false;
      const follow = (at) => {
        const others = order.filter((other) => other !== number);
        const place = others.filter((other) => {
          const box = items[other].getBoundingClientRect();
          return at.clientY > box.top + box.height / 2;
        }).length;
        if (place !== order.indexOf(number)) {
          moved = true;
          move(number, place);
          if (!grip.hasPointerCapture(event.pointerId)) grip.setPointerCapture(event.pointerId);
        }
        const edge = 60;
        if (at.clientY < edge) scrollBy(0, -12);
        else if (at.clientY > innerHeight - edge) scrollBy(0, 12);
      };
      const done = () => {
        item.classList.remove("dragged");
        removeEventListener("pointermove", follow);
        removeEventListener("pointerup", done);
        removeEventListener("pointercancel", done);
        if (moved) item.focus();
      };
      addEventListener("pointermove", follow);
      addEventListener("pointerup", done);
      addEventListener("pointercancel", done);
    });
  }

  const places = (numbers) => numbers.map((number) => query.segments[number].place);
  list.append(...items);
  const view = {
    title: "Rank them, the best first",
    body: [
      el("p", { class: "faint small" },
        el("span", { class: "keys-only" }, "Press the number of the best, then of the next best, and so on; ",
          "or drag by the dots; or focus one and press Shift with ", kbd("arrowup"), " ", kbd("arrowdown"), "."),
        el("span", { class: "touch-only" }, "Touch the best one's button, then the next best one's; or drag by the dots.")),
      list,
      ...(desk.player ? [desk.player.controls()] : []),
    ],
    actions: [
      { name: "All equal", keys: ["t", "="],
        run: () => desk.send({ kind: "ranking", order: query.segments.map((_, i) => i), tie: true }) },
      { name: "Save this order", keys: ["enter"], tone: "main", off: () => placed < count,
        run: () => desk.send({ kind: "ranking", order: places(order), tie: false }) },
    ],
    key: (name) => {
      const number = Number(name) - 1;
      if (!/^[1-9]$/.test(name) || number >= count) return false;
      toggle(number);
      return true;
    },
    draft: () => (placed ? { order, placed } : null),
    start: show,
  };
  return view;
}

function from(undone, query) {
  if (undone?.kind !== "ranking" || undone.tie) return null;
  const order = undone.order.map((place) => query.segments.findIndex((segment) => segment.place === place));
  return { order, placed: order.length };
}

const ordinal = (place) => ["", "1st", "2nd", "3rd"][place] ?? `${place}th`;
