"use strict";
// The page of a language model: type a start, see what may come next, let the model go on.

const model = new slm.LanguageModel(JSON.parse(document.getElementById("model").textContent));
const $ = (id) => document.getElementById(id);
const SHOWN = 12;
let ids = [], states = [], running = false;

// Read the text anew; what was read of it before is kept.
function readText() {
  const wanted = [slm.END, ...model.tokenizer.encode($("text").value)];
  let same = 0;
  while (same < ids.length && ids[same] === wanted[same]) same++;
  ids = wanted;
  states.length = same;
  for (let i = same; i < ids.length; i++) states.push(model.read(ids[i], i ? states[i - 1] : model.start()));
}

const settings = () => ({ temperature: Number($("temperature").value), topP: Number($("top-p").value) });

function showNext() {
  readText();
  const probabilities = slm.nextProbabilities(model.logits(states.at(-1)), settings());
  const best = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  $("next").replaceChildren(...best.filter((id) => probabilities[id] > 0).map((id) => bar(id, probabilities[id])));
  return probabilities;
}

function bar(id, probability) {
  const row = document.createElement("tr"), [name, share, drawing] = ["th", "td", "td"].map((tag) => document.createElement(tag));
  const button = document.createElement("button"), token = id === slm.END ? "⟨end⟩" : model.tokenizer.decode([id]);
  button.type = "button";
  button.textContent = token.replaceAll(" ", "␣").replaceAll("\n", "⏎");
  button.title = "Put it behind the text";
  button.onclick = () => {
    $("text").value += id === slm.END ? "" : token;
    showNext();
  };
  name.append(button);
  share.textContent = `${(100 * probability).toFixed(1)} %`;
  drawing.className = "drawing";
  const filled = document.createElement("div");
  filled.style.width = `${100 * probability}%`;
  drawing.append(filled);
  row.append(name, share, drawing);
  return row;
}

async function goOn() {
  running = true;
  $("go").disabled = true;
  $("stop").disabled = false;
  $("status").textContent = "";
  const random = slm.randomNumbers(Number($("seed").value)), most = Number($("length").value), started = performance.now();
  const written = [];
  const start = $("text").value;
  for (; running && written.length < most; ) {
    const token = slm.draw(slm.nextProbabilities(model.logits(states.at(-1)), settings()), random());
    if (token === slm.END) break;
    written.push(token);
    ids.push(token);
    states.push(model.read(token, states.at(-1)));
    $("text").value = start + model.tokenizer.decode(written);
    if (written.length % 4 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  $("text").defaultValue = $("text").value; // a page that is saved keeps it
  const seconds = (performance.now() - started) / 1000;
  $("status").textContent = `${written.length} tokens in ${seconds.toFixed(1)} s` + (running && written.length < most ? "; the text ends here." : ".");
  running = false;
  $("go").disabled = false;
  $("stop").disabled = true;
  showNext();
}

for (const id of ["temperature", "top-p", "length"]) {
  const show = () => ($(`${id}-value`).textContent = $(id).value);
  $(id).oninput = () => {
    show();
    if (id !== "length" && !running) showNext();
  };
  show();
}
let waiting = 0;
$("text").oninput = () => {
  clearTimeout(waiting);
  waiting = setTimeout(showNext, 200);
};
$("go").onclick = () => {
  clearTimeout(waiting);
  showNext();
  goOn();
};
$("stop").onclick = () => (running = false);

// page.html#text=The%20boy&temperature=0&length=20&seed=1&go begins at once.
const asked = new URLSearchParams(location.hash.slice(1));
for (const id of ["text", "temperature", "top-p", "length", "seed"]) if (asked.has(id)) $(id).value = asked.get(id);
for (const id of ["temperature", "top-p", "length"]) $(`${id}-value`).textContent = $(id).value;
showNext();
if (asked.has("go")) goOn();
