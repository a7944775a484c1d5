// Clips on one clock: all of them show the same moment, and start again together.

import { el, kbd, released } from "./dom.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const HOLD = 4;  // frames that the end stays, before all clips start again

export class Player {
  constructor(framesPerSecond) {
    this.rate = framesPerSecond;
    this.speed = 1;
    this.frame = 0;
    this.clips = [];
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.before = null;
    this.loop = (now) => {
      if (this.stopped) return;
      if (this.playing && this.before !== null) {
        this.frame += ((now - this.before) / 1000) * this.rate * this.speed;
        if (this.frame >= this.length + HOLD) this.frame = 0;
      }
      this.before = now;
      this.draw();
      requestAnimationFrame(this.loop);
    };
    requestAnimationFrame(this.loop);
  }

  get length() {
    return Math.max(1, ...this.clips.map(({ meta }) => meta.frames));
  }

  add(meta, name) {
    const canvas = el("canvas", { role: "img", "aria-label": `${name}: a clip of ${meta.frames} steps`,
      width: meta.width, height: meta.height });
    const count = el("span", { class: "faint small" });
    const clip = { meta, canvas, count, drawn: -1, image: new Image() };
    clip.image.addEventListener("error", () => { count.textContent = "The pictures did not come."; });
    clip.image.src = meta.url;
    this.clips.push(clip);
    return el("figure", { class: "clip" }, canvas, el("figcaption", {}, count));
  }

  draw() {
    for (const clip of this.clips) {
      const { meta, image, canvas } = clip;
      const frame = Math.min(Math.floor(this.frame), meta.frames - 1);
      if (frame === clip.drawn || !image.complete || !image.naturalWidth) continue;
      const width = image.naturalWidth / meta.columns;
      const height = image.naturalHeight / Math.ceil(meta.frames / meta.columns);
      const left = (frame % meta.columns) * width, top = Math.floor(frame / meta.columns) * height;
      canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, canvas.width, canvas.height);
      canvas.dataset.frame = frame;
      clip.count.textContent = `Step ${frame + 1} of ${meta.frames}`;
      clip.drawn = frame;
    }
    if (this.slider && document.activeElement !== this.slider) {
      this.slider.value = Math.min(Math.floor(this.frame), this.length - 1);
    }
  }

  toggle() {
    this.playing = !this.playing;
    this.button.setAttribute("aria-pressed", this.playing);
    this.button.firstChild.textContent = this.playing ? "Pause" : "Play";
  }

  move(steps) {
    if (this.playing) this.toggle();
    this.frame = (Math.floor(Math.min(this.frame, this.length - 1)) + steps + this.length) % this.length;
  }

  controls() {
    this.button = el("button", { type: "button", class: "quiet", "aria-pressed": this.playing,
      onclick: released(() => this.toggle()) }, this.playing ? "Pause" : "Play", kbd(" "));
    this.slider = el("input", { type: "range", min: 0, max: this.length - 1, value: 0,
      "aria-label": "Step", onpointerup: (event) => event.currentTarget.blur(), oninput: () => {
        if (this.playing) this.toggle();
        this.frame = Number(this.slider.value);
      } });
    const speed = el("select", { "aria-label": "Speed", onchange: () => {
      this.speed = Number(speed.value);
      speed.blur();
    } },
      SPEEDS.map((value) => el("option", { value, selected: value === 1 }, `\u00d7${value}`)));
    return el("div", { class: "player" }, this.button, this.slider, speed);
  }

  stop() {
    this.stopped = true;
  }
}
