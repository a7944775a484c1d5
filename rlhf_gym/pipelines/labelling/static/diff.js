// What was changed between two texts: word by word where that is quick, line by line where it is not,
// and of what stayed only the surroundings. So a megabyte is compared and shown at once, too.

import { el } from "./dom.js";

const STEPS = 500_000;  // of one comparison; enough for some 700 changed words however long the texts are
const BOUNDARY = 100;  // characters in which the end of a word is looked for
const AROUND = 300;  // unchanged characters shown beside a change
const SHOWN = 4000;  // characters shown of one change
const CHANGES = 200;  // changes shown

const words = (text) => text.split(/(\s+)/).filter(Boolean);
const lines = (text) => text.split(/(?<=\n)/);

// Runs of [kind, text], kind being "same", "gone" or "new", that spell both texts.
export function difference(before, after) {
  const head = commonHead(before, after);
  const tail = commonTail(before, after, Math.min(before.length, after.length) - head);
  const gone = before.slice(head, before.length - tail), fresh = after.slice(head, after.length - tail);
  return joined([["same", before.slice(0, head)], ...compared(gone, fresh),
    ["same", before.slice(before.length - tail)]].filter(([, text]) => text));
}

// How much both begin with, up to the end of a word.
function commonHead(before, after) {
  const most = Math.min(before.length, after.length);
  let same = 0;
  while (same < most && before[same] === after[same]) same += 1;
  if (same === before.length && same === after.length) return same;
  for (let at = same; at > Math.max(0, same - BOUNDARY); at -= 1) if (/\s/.test(before[at - 1])) return at;
  return same <= BOUNDARY ? 0 : whole(before, same);
}

// How much both end with, at most so many characters, from the beginning of a word on.
function commonTail(before, after, most) {
  const [old, fresh] = [before.length, after.length];
  let same = 0;
  while (same < most && before[old - 1 - same] === after[fresh - 1 - same]) same += 1;
  for (let at = same; at > Math.max(0, same - BOUNDARY); at -= 1) if (/\s/.test(before[old - at])) return at;
  return same <= BOUNDARY ? 0 : old - whole(before, old - same + 1);
}

// A place in a text where no character of two halves is cut.
const whole = (text, at) => (/[\udc00-\udfff]/.test(text[at] ?? "") ? at - 1 : at);

// Words if they are quickly compared, otherwise lines, whose changes are compared by words in turn; what
// takes too long counts as replaced whole.
function compared(before, after) {
  if (!before || !after) return [["gone", before], ["new", after]];
  const byWord = aligned(words(before), words(after), { steps: STEPS / 2 });
  if (byWord) return byWord;
  const budget = { steps: STEPS / 2 }, parts = [];
  let gone = "", fresh = "";
  const byLine = aligned(lines(before), lines(after), budget) ?? [["gone", before], ["new", after]];
  for (const [kind, text] of [...byLine, ["same", ""]]) {
    if (kind === "gone") gone += text;
    else if (kind === "new") fresh += text;
    else {
      parts.push(...(aligned(words(gone), words(fresh), budget) ?? [["gone", gone], ["new", fresh]]), ["same", text]);
      gone = fresh = "";
    }
  }
  return parts;
}

// Changes with nothing but a space between them read better as one: all that is gone, all that is new.
function joined(parts) {
  const made = [];
  let gone = "", fresh = "", between = "";
  const flush = () => {
    if (gone) made.push(["gone", gone]);
    if (fresh) made.push(["new", fresh]);
    if (between) made.push(["same", between]);
    gone = fresh = between = "";
  };
  for (const [kind, text] of parts) {
    if (kind === "same" && !text.trim() && (gone || fresh)) between += text;
    else if (kind === "same") {
      flush();
      made.push(["same", text]);
    } else if (text) {
      gone += between;
      fresh += between;
      between = "";
      if (kind === "gone") gone += text;
      else fresh += text;
    }
  }
  flush();
  return made;
}

// The fewest words (or lines) out and in that turn one list into the other, as runs; null if that takes
// more than the steps left. The greedy algorithm of Myers (1986), "An O(ND) difference algorithm and its
// variations": reach[k] is how far into `old` one gets on diagonal k = (place in old) - (place in fresh).
function aligned(old, fresh, budget) {
  const most = old.length + fresh.length, middle = most + 1;
  const reach = new Int32Array(2 * middle + 1), trace = [];
  for (let changes = 0; changes <= most; changes += 1) {
    budget.steps -= changes + 1;
    if (budget.steps < 0) return null;
    trace.push(reach.slice(middle - changes - 1, middle + changes + 2));
    for (let k = -changes; k <= changes; k += 2) {
      let x = came(reach, middle, k, changes) > k ? reach[middle + k + 1] : reach[middle + k - 1] + 1;
      while (x < old.length && x - k < fresh.length && old[x] === fresh[x - k]) x += 1;
      reach[middle + k] = x;
      if (x >= old.length && x - k >= fresh.length) return runs(old, fresh, trace);
    }
  }
  return null;
}

// The diagonal from which k is reached: by a word that is new from the one above, or by one that is gone.
function came(reach, middle, k, changes) {
  const isNew = k === -changes || (k !== changes && reach[middle + k - 1] < reach[middle + k + 1]);
  return isNew ? k + 1 : k - 1;
}

// The way back through what was reached, as runs from the beginning.
function runs(old, fresh, trace) {
  const found = [];
  let x = old.length, y = fresh.length;
  for (let changes = trace.length - 1; changes > 0; changes -= 1) {
    const reach = trace[changes], middle = changes + 1;
    const k = came(reach, middle, x - y, changes), beforeX = reach[middle + k], beforeY = beforeX - k;
    const isNew = k > x - y, same = isNew ? x - beforeX : x - beforeX - 1;
    if (same) found.push(["same", old.slice(x - same, x).join("")]);
    found.push(isNew ? ["new", fresh[beforeY]] : ["gone", old[beforeX]]);
    [x, y] = [beforeX, beforeY];
  }
  if (x) found.push(["same", old.slice(0, x).join("")]);
  return found.reverse();
}

const left = (count, what) => el("span", { class: "faint" }, ` \u2026 ${count.toLocaleString("en")} ${what} \u2026 `);

// A run as nodes: a long one by its beginning, a long unchanged one by its ends.
function nodes(kind, text, isFirst, isLast) {
  const tag = { same: "span", gone: "del", new: "ins" }[kind];
  if (kind !== "same") {
    if (text.length <= SHOWN) return [el(tag, {}, text)];
    const end = whole(text, SHOWN);
    return [el(tag, {}, text.slice(0, end)), left(text.length - end, "more characters")];
  }
  const head = isFirst ? 0 : whole(text, AROUND), tail = isLast ? text.length : whole(text, text.length - AROUND);
  if (tail - head <= AROUND) return [el(tag, {}, text)];
  return [el(tag, {}, text.slice(0, head)), left(tail - head, "characters as they were"),
    el(tag, {}, text.slice(tail))];
}

export function shownDifference(before, after) {
  const all = difference(before, after), some = all.slice(0, 2 * CHANGES);
  const made = some.flatMap(([kind, text], at) => nodes(kind, text, at === 0, at === all.length - 1));
  const more = all.slice(2 * CHANGES).filter(([kind]) => kind !== "same").length;
  return more ? [...made, left(more, "more changes")] : made;
}
