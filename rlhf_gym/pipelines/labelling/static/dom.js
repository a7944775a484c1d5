// Elements from plain values. Strings become text nodes, so no text is ever read as markup.

const LONG = 20_000;

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A text as it is: its own line breaks, its own direction, and only the beginning of a huge one.
export function prose(text, className = "") {
  const block = el("div", { class: `prose ${className}`, dir: "auto" });
  if (text === "") {
    block.append(el("span", { class: "faint" }, "(empty)"));
    return block;
  }
  if (text.length <= LONG) {
    // Most models begin with the space after the prompt; it is there, but indents nothing.
    const indented = /^ \S/.test(text);
    block.append(indented ? el("span", { class: "leading" }, " ") : "", indented ? text.slice(1) : text);
    return block;
  }
  const rest = el("button", { type: "button", class: "quiet small", onclick: () => {
    block.replaceChildren(text);
  } }, `Show all ${text.length.toLocaleString("en")} characters`);
  block.append(text.slice(0, LONG), "\u2026 ", rest);
  return block;
}

// For what is pressed with the mouse: keys go back to the page, or Enter would press it again.
export function released(act) {
  return (event) => {
    if (event.detail > 0) event.currentTarget.blur();
    act(event);
  };
}

export function kbd(key) {
  const names = { arrowleft: "\u2190", arrowright: "\u2192", arrowup: "\u2191", arrowdown: "\u2193",
    enter: "Enter", "ctrl+enter": "Ctrl Enter", " ": "Space" };
  return el("kbd", { "aria-hidden": "true" }, names[key] ?? key.toUpperCase());
}

// A few marks of Markdown: headings, lists, paragraphs. Everything else is text.
export function plainMarkdown(source) {
  const blocks = [];
  let list = null, lines = [];
  const flush = () => {
    if (lines.length) blocks.push(el("p", { dir: "auto" }, lines.join(" ")));
    lines = [];
  };
  for (const line of source.split(/\r?\n/)) {
    const heading = /^#{1,6}\s+(.*)$/.exec(line), item = /^\s*(?:[-*]|\d+\.)\s+(.*)$/.exec(line);
    if (!item) list = null;
    if (heading || item || !line.trim()) flush();
    if (heading) blocks.push(el("h3", { dir: "auto" }, heading[1]));
    else if (item) {
      if (!list) blocks.push((list = el("ul")));
      list.append(el("li", { dir: "auto" }, item[1]));
    } else if (line.trim()) lines.push(line.trim());
  }
  flush();
  return blocks;
}
