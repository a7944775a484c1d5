// What was changed between two texts, word by word.

import { el } from "./dom.js";

const MOST = 4_000_000;  // cells of the table; beyond, the middle is shown as replaced whole

export function difference(before, after) {
  const old = before.split(/(\s+)/).filter(Boolean), fresh = after.split(/(\s+)/).filter(Boolean);
  let start = 0, end = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start += 1;
  while (end < old.length - start && end < fresh.length - start
    && old[old.length - 1 - end] === fresh[fresh.length - 1 - end]) end += 1;
  const parts = [
    ["same", old.slice(0, start)],
    ...middle(old.slice(start, old.length - end), fresh.slice(start, fresh.length - end)),
    ["same", old.slice(old.length - end)],
  ];
  return joined(parts.filter(([, words]) => words.length));
}

// Changes with nothing but a space between them read better as one: all that is gone, all that is new.
function joined(parts) {
  const runs = [];
  let gone = "", fresh = "", between = "";
  const flush = () => {
    if (gone) runs.push(["gone", gone]);
    if (fresh) runs.push(["new", fresh]);
    if (between) runs.push(["same", between]);
    gone = fresh = between = "";
  };
  for (const [kind, words] of parts) {
    const text = words.join("");
    if (kind === "same" && !text.trim() && (gone || fresh)) between += text;
    else if (kind === "same") {
      flush();
      runs.push(["same", text]);
    } else {
      gone += between;
      fresh += between;
      between = "";
      if (kind === "gone") gone += text;
      else fresh += text;
    }
  }
  flush();
  return runs;
}

// Longest common subsequence, by dynamic programming from the end.
function middle(old, fresh) {
  const rows = old.length, columns = fresh.length;
  if (!rows || !columns || rows * columns > MOST) return [["gone", old], ["new", fresh]];
  const width = columns + 1;
  const longest = new Uint32Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      longest[i * width + j] = old[i] === fresh[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const parts = [];
  const put = (kind, word) => {
    if (parts.length && parts.at(-1)[0] === kind) parts.at(-1)[1].push(word);
    else parts.push([kind, [word]]);
  };
  let i = 0, j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && old[i] === fresh[j]) {
      put("same", old[i]);
      i += 1;
      j += 1;
    } else if (j === columns || (i < rows && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      put("gone", old[i]);
      i += 1;
    } else {
      put("new", fresh[j]);
      j += 1;
    }
  }
  return parts;
}

export function shownDifference(before, after) {
  const tags = { same: "span", gone: "del", new: "ins" };
  return difference(before, after).map(([kind, text]) => el(tags[kind], {}, text));
}
