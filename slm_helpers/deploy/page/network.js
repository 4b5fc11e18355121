"use strict";
// A small recurrent network in plain JavaScript: its tokeniser, its layers, and how the next token is drawn. No part of it knows the page.

const slm = (() => {
  const END = 2, NEVER = [0, 1]; // <end>; <pad> and <unk> are never written
  const MAX_NGRAMS = 4096;

  // --- Numbers

  function bytesOf(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  function halfToFloat(half) {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }

  // An array as the page holds it: {shape, type, data} and, of whole numbers, the scales of rows (axis 0) or columns (axis 1).
  function arrayOf({ shape, type, data, scales, axis }) {
    const bytes = bytesOf(data);
    if (type === "float32") return { shape, values: new Float32Array(bytes.buffer) };
    if (type === "float16") return { shape, values: Float32Array.from(new Uint16Array(bytes.buffer), halfToFloat) };
    const numbers = new Int8Array(bytes.buffer), each = new Float32Array(bytesOf(scales).buffer), columns = shape[1];
    const values = new Float32Array(numbers.length);
    for (let i = 0; i < values.length; i++) values[i] = numbers[i] * each[axis ? i % columns : Math.floor(i / columns)];
    return { shape, values };
  }

  // With each output's weights side by side, so that a product is a sum along memory.
  function turned({ shape: [rows, columns], values }) {
    const out = new Float32Array(values.length);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j];
    return { shape: [columns, rows], values: out };
  }

  // out[j] = bias[j] + sum over i of matrix[j][i] * x[i]
  function product({ shape: [outputs, inputs], values }, x, bias) {
    const out = new Float32Array(outputs);
    for (let j = 0, at = 0; j < outputs; j++) {
      let a = bias ? bias[j] : 0, b = 0, c = 0, d = 0, i = 0;
      for (; i + 3 < inputs; i += 4, at += 4) {
        a += values[at] * x[i];
        b += values[at + 1] * x[i + 1];
        c += values[at + 2] * x[i + 2];
        d += values[at + 3] * x[i + 3];
      }
      for (; i < inputs; i++, at++) a += values[at] * x[i];
      out[j] = a + b + c + d;
    }
    return out;
  }

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // --- Tokeniser: byte-level BPE, or single characters

  function byteLetters() {
    const plain = [], letters = [];
    for (const [first, last] of [[33, 126], [161, 172], [174, 255]]) for (let b = first; b <= last; b++) plain.push(b);
    for (let b = 0, others = 0; b < 256; b++) letters.push(String.fromCodePoint(plain.includes(b) ? b : 256 + others++));
    return letters;
  }

  class Tokenizer {
    constructor(file) {
      this.ids = new Map(Object.entries(file.model.vocab));
      this.tokens = [];
      for (const [token, id] of this.ids) this.tokens[id] = token;
      this.ofBytes = file.model.type === "BPE";
      if (!this.ofBytes) return;
      this.letters = byteLetters();
      this.bytes = new Map(this.letters.map((letter, byte) => [letter, byte]));
      this.ranks = new Map(file.model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
      this.cache = new Map();
    }

    encode(text) {
      if (!this.ofBytes) return [...text].map((sign) => this.ids.get(sign) ?? 1);
      const pieces = text.match(/'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? [];
      return pieces.flatMap((piece) => {
        if (!this.cache.has(piece)) this.cache.set(piece, this.merge(piece));
        return this.cache.get(piece);
      });
    }

    merge(piece) {
      const parts = Array.from(new TextEncoder().encode(piece), (byte) => this.letters[byte]);
      for (;;) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
          if (rank < best) [best, at] = [rank, i];
        }
        if (at < 0) return parts.map((part) => this.ids.get(part));
        parts.splice(at, 2, parts[at] + parts[at + 1]);
      }
    }

    decode(ids) {
      const tokens = ids.filter((id) => id !== END && id !== 0).map((id) => this.tokens[id]);
      if (!this.ofBytes) return tokens.join("");
      return new TextDecoder().decode(Uint8Array.from(tokens.flatMap((token) => [...token].map((letter) => this.bytes.get(letter)))));
    }
  }

  // --- Layers

  class Recurrent {
    constructor(cell, weights) {
      this.cell = cell;
      this.kernel = turned(weights.kernel);
      this.recurrent = turned(weights.recurrent_kernel);
      this.units = this.recurrent.shape[1];
      this.bias = weights.bias.values; // of a GRU two rows: for the input, then for the state
    }

    start() {
      return Array.from({ length: this.cell === "lstm" ? 2 : 1 }, () => new Float32Array(this.units));
    }

    // The states after one more position; the first is the output.
    step(x, states) {
      const n = this.units, gates = this.bias.length === 6 * n ? this.bias.subarray(3 * n) : null;
      const a = product(this.kernel, x, this.bias), h = product(this.recurrent, states[0], gates), out = new Float32Array(n);
      if (this.cell === "rnn") {
        for (let i = 0; i < n; i++) out[i] = Math.tanh(a[i] + h[i]);
        return [out];
      }
      if (this.cell === "gru") {
        for (let i = 0; i < n; i++) {
          const update = sigmoid(a[i] + h[i]), reset = sigmoid(a[n + i] + h[n + i]);
          const candidate = Math.tanh(a[2 * n + i] + reset * h[2 * n + i]);
          out[i] = candidate + update * (states[0][i] - candidate);
        }
        return [out];
      }
      const memory = new Float32Array(n);
      for (let i = 0; i < n; i++) {
        const [enter, keep, show] = [0, 1, 3].map((gate) => sigmoid(a[gate * n + i] + h[gate * n + i]));
        memory[i] = keep * states[1][i] + enter * Math.tanh(a[2 * n + i] + h[2 * n + i]);
        out[i] = show * Math.tanh(memory[i]);
      }
      return [out, memory];
    }
  }

  class Backbone {
    constructor(file) {
      const layers = {};
      for (const [path, stored] of Object.entries(file.weights)) {
        const parts = path.split("/");
        (layers[parts[0]] ??= {})[parts.at(-1)] = arrayOf(stored);
      }
      const { cell = "gru", num_layers = 1 } = file.arguments;
      this.layers = layers;
      this.tokenizer = new Tokenizer(file.tokenizer);
      this.embedding = layers.embedding.embeddings;
      this.recurrent = Array.from({ length: num_layers }, (_, i) => new Recurrent(cell, layers[`${cell}_${i}`]));
    }

    start() {
      return this.recurrent.map((layer) => layer.start());
    }

    // The states of all layers after one more token; the output is the first state of the last layer.
    read(token, states) {
      const size = this.embedding.shape[1];
      let x = this.embedding.values.subarray(token * size, (token + 1) * size);
      return this.recurrent.map((layer, i) => {
        const after = layer.step(x, states[i]);
        x = after[0];
        return after;
      });
    }
  }

  class LanguageModel extends Backbone {
    constructor(file) {
      super(file);
      const dense = (layer) => layer && { kernel: turned(layer.kernel), bias: layer.bias?.values };
      this.projection = dense(this.layers.projection);
      this.output = dense(this.layers.logits); // none where the embedding scores the tokens
    }

    logits(states) {
      let x = states.at(-1)[0];
      if (this.output) return product(this.output.kernel, x, this.output.bias);
      if (this.projection) x = product(this.projection.kernel, x, this.projection.bias);
      return product(this.embedding, x);
    }
  }

  class TextClassifier extends Backbone {
    constructor(file) {
      super(file);
      this.labels = file.labels;
      this.settings = file.settings;
      this.buckets = file.arguments.num_buckets ?? 0;
      this.head = { kernel: turned(this.layers.logits.kernel), bias: this.layers.logits.bias.values };
      this.table = this.layers.ngram_scores?.table;
    }

    tokenIds(text) {
      const ids = this.tokenizer.encode(text), kept = this.settings.max_tokens - 1, tail = Math.floor(kept / 2);
      return [END, ...(ids.length > kept ? [...ids.slice(0, kept - tail), ...ids.slice(ids.length - tail)] : ids)];
    }

    logits(text) {
      const ids = this.tokenIds(text), size = this.recurrent.at(-1).units;
      const pooled = new Float32Array(3 * size).fill(0, 0, size).fill(-Infinity, size, 2 * size);
      let states = this.start();
      for (const id of ids) {
        states = this.read(id, states);
        const x = states.at(-1)[0];
        for (let i = 0; i < size; i++) {
          pooled[i] += x[i] / ids.length;
          if (x[i] > pooled[size + i]) pooled[size + i] = x[i];
          pooled[2 * size + i] = x[i];
        }
      }
      const scores = product(this.head.kernel, pooled, this.head.bias);
      if (!this.table) return scores;
      const columns = this.table.shape[1], sums = new Float64Array(columns);
      for (const id of hashNgrams(text, this.buckets)) for (let k = 0; k < columns; k++) sums[k] += this.table.values[id * columns + k];
      const norm = Math.sqrt(Math.max(sums[columns - 1], 1e-6));
      return scores.map((score, k) => score + sums[k] / norm);
    }

    probabilities(text) {
      return softmax(this.logits(text), this.settings.temperature ?? 1);
    }
  }

  // --- Hashed n-grams of a text, as scikit-learn's HashingVectorizer has them

  function murmur(bytes) {
    let h = 0, at = 0;
    const mix = (k) => Math.imul(((k = Math.imul(k, 0xcc9e2d51)) << 15) | (k >>> 17), 0x1b873593);
    for (; at + 4 <= bytes.length; at += 4) {
      h ^= mix(bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24));
      h = Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64;
    }
    let rest = 0;
    for (let i = bytes.length - 1; i >= at; i--) rest = (rest << 8) | bytes[i];
    if (at < bytes.length) h ^= mix(rest);
    h ^= bytes.length;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) | 0;
  }

  function hashNgrams(text, buckets) {
    const half = buckets / 2, low = new Set(), high = new Set(), encoder = new TextEncoder();
    const bucket = (ngram) => Math.abs(murmur(encoder.encode(ngram))) % half;
    text = text.toLowerCase();
    const words = text.match(/[\p{L}\p{N}_]+/gu) ?? [];
    words.forEach((word, i) => {
      low.add(bucket(word));
      if (i) low.add(bucket(`${words[i - 1]} ${word}`));
    });
    for (const word of text.split(/\s+/u).filter(Boolean)) {
      const signs = [" ", ...word, " "];
      for (let n = 3; n <= 5; n++) {
        high.add(bucket(signs.slice(0, n).join("")));
        for (let i = 1; i + n <= signs.length; i++) high.add(bucket(signs.slice(i, i + n).join("")));
        if (signs.length <= n) break; // a short word counts once
      }
    }
    const sorted = (set) => [...set].sort((a, b) => a - b);
    const ids = [...sorted(low).map((id) => id + 1), ...sorted(high).map((id) => id + 1 + half)];
    if (ids.length <= MAX_NGRAMS) return ids;
    return Array.from({ length: MAX_NGRAMS }, (_, i) => ids[Math.round((i * (ids.length - 1)) / (MAX_NGRAMS - 1))]);
  }

  // --- Which token comes next

  function softmax(logits, temperature = 1) {
    const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const weights = Float64Array.from(logits, (x) => Math.exp((x - highest) / temperature)), sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((x) => x / sum);
  }

  // The probability with which each token is drawn: temperature, then the fewest likeliest tokens that hold `topP` together.
  function nextProbabilities(logits, { temperature, topP }) {
    const allowed = logits.slice();
    for (const id of NEVER) allowed[id] = -Infinity;
    if (temperature < 1e-4) {
      const best = allowed.indexOf(allowed.reduce((a, b) => Math.max(a, b), -Infinity));
      return Float64Array.from(allowed, (_, id) => Number(id === best));
    }
    const probabilities = softmax(allowed, temperature);
    if (topP >= 1) return probabilities;
    const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
    let sum = 0, kept = 0;
    while (kept < order.length && sum < topP) sum += probabilities[order[kept++]];
    const drawn = new Float64Array(probabilities.length);
    for (const id of order.slice(0, kept)) drawn[id] = probabilities[id] / sum;
    return drawn;
  }

  // Numbers in [0, 1) that are the same for the same seed (mulberry32).
  function randomNumbers(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let x = Math.imul(state ^ (state >>> 15), 1 | state);
      x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
      return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
    };
  }

  function draw(probabilities, random) {
    let sum = 0, last = 0;
    for (let id = 0; id < probabilities.length; id++) {
      if (!probabilities[id]) continue;
      sum += probabilities[id];
      last = id;
      if (sum > random) break;
    }
    return last;
  }

  return { END, Tokenizer, LanguageModel, TextClassifier, hashNgrams, nextProbabilities, randomNumbers, draw };
})();
if (typeof module !== "undefined") module.exports = slm;
