"use strict";
// The page of a classifier: type a text, see the classes, and by how much each word moves the likeliest one.

const model = new slm.TextClassifier(JSON.parse(document.getElementById("model").textContent));
const $ = (id) => document.getElementById(id);
const SHOWN = 20, MOST_WORDS = 80;
let turn = 0;

const percent = (x) => `${(100 * x).toFixed(1)} %`;

function row(name, value, width, className) {
  const line = document.createElement("tr"), [head, share, drawing] = ["th", "td", "td"].map((tag) => document.createElement(tag));
  head.textContent = name;
  share.textContent = value;
  drawing.className = "drawing";
  const filled = document.createElement("div");
  filled.style.width = `${100 * width}%`;
  filled.className = className;
  drawing.append(filled);
  line.append(head, share, drawing);
  return line;
}

async function classify() {
  const mine = ++turn, text = $("text").value;
  $("classes").replaceChildren();
  $("words").replaceChildren();
  $("status").textContent = "";
  if (!text.trim()) return;
  const probabilities = model.probabilities(text), best = probabilities.indexOf(Math.max(...probabilities));
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  $("classes").replaceChildren(...order.map((k) => row(model.labels[k], percent(probabilities[k]), probabilities[k], "")));
  // Without each word in turn: what the likeliest class loses by it.
  const words = [...text.matchAll(/\S+/gu)].slice(0, MOST_WORDS), effects = [];
  for (const word of words) {
    if (mine !== turn) return; // the text has changed
    $("status").textContent = `Reading the text without each of its words: ${effects.length + 1} of ${words.length}`;
    const before = text.slice(0, word.index), after = text.slice(word.index + word[0].length).replace(/^\s/u, "");
    const without = after ? before + after : before.trimEnd();
    effects.push(probabilities[best] - model.probabilities(without || " ")[best]);
    await new Promise((resolve) => setTimeout(resolve));
  }
  if (mine !== turn) return;
  $("status").textContent = `What each word adds to (+) or takes from (−) "${model.labels[best]}", found by reading the text without it.`;
  const highest = Math.max(1e-6, ...effects.map(Math.abs));
  const ranked = Array.from(effects.keys()).sort((a, b) => Math.abs(effects[b]) - Math.abs(effects[a])).slice(0, SHOWN);
  $("words").replaceChildren(
    ...ranked.map((i) => {
      const sign = effects[i] < 0 ? "−" : "+";
      return row(words[i][0], `${sign}${(100 * Math.abs(effects[i])).toFixed(1)} points`, Math.abs(effects[i]) / highest, effects[i] < 0 ? "against" : "");
    }),
  );
}

let waiting = 0;
$("text").oninput = () => {
  clearTimeout(waiting);
  waiting = setTimeout(classify, 300);
};
// page.html#text=I%20liked%20it shows that text.
const asked = new URLSearchParams(location.hash.slice(1));
if (asked.has("text")) $("text").value = asked.get("text");
classify();
