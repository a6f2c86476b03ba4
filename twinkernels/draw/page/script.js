// The page: strokes on a canvas, sent to the server as pixels while they grow, and what it answers as pictures.

const RASTER = 196; // pixels a side of what is sent, whatever the screen's resolution
const PEN = 0.085; // of the paper's side: about what MNIST's pens are of a digit drawn large
const KEPT = 25; // times of which the median is shown
const GONE = "The server is gone. Start “twinkernels draw” again.";

const element = (id) => document.getElementById(id);
const paper = element("paper");
const framed = element("framed");
const context = paper.getContext("2d");
const raster = new OffscreenCanvas(RASTER, RASTER).getContext("2d", { willReadFrequently: true });

const strokes = []; // each a list of points {x, y}, as shares of the paper's side
let growing = null; // the stroke that the pointer or the keyboard is at
const pen = { x: 0.5, y: 0.3, shown: false }; // the keyboard's

// Drawing

function trace(target, side, colour) {
  target.clearRect(0, 0, side, side);
  target.lineWidth = PEN * side;
  target.lineCap = target.lineJoin = "round";
  target.strokeStyle = target.fillStyle = colour;
  for (const stroke of strokes) {
    const points = stroke.map(({ x, y }) => [x * side, y * side]);
    const [[x, y]] = points;
    target.beginPath();
    if (points.length === 1) {
      target.arc(x, y, (PEN * side) / 2, 0, 2 * Math.PI);
      target.fill();
      continue;
    }
    target.moveTo(x, y);
    for (let i = 1; i < points.length - 1; i++) {
      const [[a, b], [c, d]] = [points[i], points[i + 1]];
      target.quadraticCurveTo(a, b, (a + c) / 2, (b + d) / 2);
    }
    target.lineTo(...points.at(-1));
    target.stroke();
  }
}

function paint() {
  const { color } = getComputedStyle(paper);
  trace(context, paper.width, color);
  if (pen.shown) {
    context.beginPath();
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = color;
    context.arc(pen.x * paper.width, pen.y * paper.width, (PEN * paper.width) / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

function changed() {
  document.body.classList.toggle("drawn", strokes.length > 0);
  element("undo").disabled = element("clear").disabled = strokes.length === 0;
  paint();
  read();
}

function extend(x, y) {
  growing.push({ x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) });
}

function begin(x, y) {
  growing = [];
  strokes.push(growing);
  extend(x, y);
}

function end() {
  growing = null;
  speak();
}

function undo() {
  growing = null;
  strokes.pop();
  changed();
}

function clear() {
  growing = null;
  strokes.length = 0;
  changed();
}

function place(event) {
  const box = paper.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

let pointer = null; // a second finger does not draw
paper.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  pen.shown = false;
  begin(...place(event));
  changed();
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer || !growing) return;
  const between = event.getCoalescedEvents?.() ?? [];
  for (const moved of between.length ? between : [event]) extend(...place(moved));
  changed();
});
for (const name of ["pointerup", "pointercancel"]) {
  paper.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    end();
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
paper.addEventListener("keydown", (event) => {
  if (pointer !== null) return;
  if (event.key in ARROWS) {
    const [right, down] = ARROWS[event.key];
    const step = event.shiftKey ? 0.1 : 0.025;
    pen.x = Math.min(Math.max(pen.x + step * right, 0), 1);
    pen.y = Math.min(Math.max(pen.y + step * down, 0), 1);
    if (growing) extend(pen.x, pen.y);
  } else if (event.key === " ") {
    if (growing) end();
    else begin(pen.x, pen.y);
  } else return;
  event.preventDefault();
  pen.shown = true;
  changed();
});
paper.addEventListener("blur", () => {
  if (growing && pointer === null) end();
  pen.shown = false;
  paint();
});
document.addEventListener("keydown", (event) => {
  if (pointer !== null || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "z" && strokes.length) undo();
  else if (key === "c" && !event.ctrlKey && !event.metaKey) clear(); // with Ctrl it copies
  else return;
  event.preventDefault();
});
element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);

new ResizeObserver(() => {
  paper.width = paper.height = Math.round(paper.clientWidth * devicePixelRatio);
  paint();
}).observe(paper);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  paint();
  show(shown);
});

// Reading: one request at a time, and another at once if the drawing has grown meanwhile

let stale = false;
let reading = false;

async function read() {
  stale = true;
  if (reading) return;
  reading = true;
  while (stale) {
    stale = false;
    try {
      const answer = strokes.length ? await ask() : null;
      show(strokes.length ? answer : null);
      element("trouble").textContent = "";
    } catch (error) {
      element("trouble").textContent = error instanceof TypeError ? GONE : error.message;
    }
    await new Promise(requestAnimationFrame);
  }
  reading = false;
  if (!growing) speak();
}

async function ask() {
  trace(raster, RASTER, "black");
  const { data } = raster.getImageData(0, 0, RASTER, RASTER);
  const ink = Array.from({ length: RASTER * RASTER }, (_, i) => String.fromCharCode(data[4 * i + 3])).join("");
  const response = await fetch("read", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ width: RASTER, height: RASTER, ink: btoa(ink) }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Showing

let shown = null; // the last answer, null for an empty paper
const times = {}; // seconds by backend, the latest last

function show(answer) {
  shown = answer;
  const probabilities = answer?.probabilities ?? [];
  const best = probabilities.indexOf(Math.max(...probabilities));
  element("digit").textContent = answer ? best : "";
  element("digit").style.opacity = answer ? 0.3 + 0.7 * probabilities[best] : 1;
  showBars(probabilities, best);
  picture(framed, answer ? bytes(answer.image) : []);
  showMaps(answer);
  if (answer) showTimes(answer.seconds);
}

function showBars(probabilities, best) {
  [...element("bars").children].forEach((row, i) => {
    row.classList.toggle("best", i === best);
    row.children[1].style.setProperty("--share", probabilities[i] ?? 0);
    row.children[2].textContent = probabilities.length ? `${(100 * probabilities[i]).toFixed(1)} %` : "";
  });
}

function showTimes(seconds) {
  const medians = Object.entries(seconds).map(([name, time]) => {
    times[name] = [...(times[name] ?? []), time].slice(-KEPT);
    return [name, [...times[name]].sort((a, b) => a - b)[times[name].length >> 1]];
  });
  const all = medians.map(([, time]) => time);
  for (const [name, time] of medians) {
    const row = document.querySelector(`#times [data-name="${name}"]`);
    row.classList.toggle("best", time === Math.min(...all));
    row.children[1].style.setProperty("--share", time / Math.max(...all));
    row.children[2].textContent = time < 1e-3 ? `${(1e6 * time).toFixed(0)} µs` : `${(1e3 * time).toFixed(1)} ms`;
  }
}

function showMaps(answer) {
  const levels = answer ? bytes(answer.responses) : new Uint8Array();
  [...element("maps").children].forEach((map, i) => {
    const size = map.width * map.height;
    picture(map, levels.subarray(i * size, (i + 1) * size));
  });
}

const bytes = (data) => Uint8Array.from(atob(data), (character) => character.charCodeAt(0));

// Grey levels as a canvas's pixels: the more, the more of the ink's colour.
function picture(canvas, levels) {
  const { width, height } = canvas;
  const target = canvas.getContext("2d", { willReadFrequently: true });
  target.fillStyle = getComputedStyle(paper).color;
  target.globalCompositeOperation = "copy";
  target.fillRect(0, 0, width, height);
  const image = target.getImageData(0, 0, width, height); // all of one colour; now how much of it
  for (let i = 0; i < width * height; i++) image.data[4 * i + 3] = levels[i] ?? 0;
  target.putImageData(image, 0, 0);
}

// For those who do not see the page: once a stroke is done, not while it grows.
function speak() {
  if (!shown) return;
  const best = Number(element("digit").textContent);
  element("spoken").textContent = `Read as ${best}, ${Math.round(100 * shown.probabilities[best])} percent`;
}

const chain = (layers) => layers.join(" → ").replaceAll("()", "");

function introduce(model) {
  element("name").textContent = model.name;
  element("about").textContent = model.about;
  element("front").textContent = chain(model.front);
  element("layers").textContent = `${chain(model.layers)}; ${model.parameters.toLocaleString("en")} parameters.`;
  element("threads").textContent = model.threads === 1 ? "on one thread" : `on ${model.threads} threads`;
  for (let digit = 0; digit < model.classes; digit++) {
    const row = document.createElement("li");
    row.innerHTML = `<span>${digit}</span><span class="bar"></span><span class="value"></span>`;
    element("bars").append(row);
  }
  for (const backend of model.backends) {
    const row = document.createElement("div");
    row.dataset.name = backend;
    row.innerHTML = `<dt>${backend}</dt><span class="bar"></span><dd class="value"></dd>`;
    element("times").append(row);
  }
  const [count, height, width] = model.responses;
  for (let i = 0; i < count; i++) {
    element("maps").append(Object.assign(document.createElement("canvas"), { width, height }));
  }
  [framed.height, framed.width] = model.image;
}

try {
  introduce(await (await fetch("model")).json());
  show(null);
} catch {
  element("trouble").textContent = GONE;
}
