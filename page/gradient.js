"use strict";
// What a pixel's mixture has looked at: the network over the whole picture at once, as in utils/model.py, and back
// through it by the chain rule. Every function appends to `tape` what carries the gradient of its result to its inputs.

/** Activations (H, W, C), pixel after pixel, and the gradient of one number with respect to them. */
class Layer {
  constructor(height, width, channels) {
    Object.assign(this, {height, width, channels});
    this.data = new Float64Array(height * width * channels);
    this.gradient = new Float64Array(this.data.length);
  }
}

/** in.gradient += transpose(weight) out.gradient, at a pixel of each; weight: (nrOut, nrIn). */
function carryBack(input, from, weight, output, to) {
  const nrIn = input.channels, nrOut = output.channels;
  for (let o = 0; o < nrOut; o++) {
    const slope = output.gradient[to * nrOut + o];
    if (slope === 0) continue; // as nearly everywhere: a pixel depends on few
    for (let i = 0; i < nrIn; i++) input.gradient[from * nrIn + i] += slope * weight[o * nrIn + i];
  }
}

/** Adds to `output` what the taps of a kernel make of `input`; `places` are [to, from, tap] each. */
function connect(tape, output, input, places) {
  const nrIn = input.channels, nrOut = output.channels;
  for (const [to, from, tap] of places) accumulate(output.data, to * nrOut, nrOut, tap, input.data, from * nrIn, nrIn);
  tape.push(() => {
    for (const [to, from, tap] of places) carryBack(input, from, tap, output, to);
  });
}

/** A causal convolution: padding lies above and on the left (and on the right, of kernels three wide) only. The result
 * moves down and right by as many pixels as are asked for, and zeros come in; it is added to `output` if that is given. */
function convolve(tape, input, conv, {stride = 1, down = 0, right = 0, output = null} = {}) {
  const [height, width] = [input.height / stride, input.width / stride];
  const result = output || new Layer(height, width, conv.nrOut), places = [];
  const top = conv.rows - 1, left = Math.floor(conv.columns / 2);
  for (let i = down; i < height; i++) {
    for (let j = right; j < width; j++) {
      const to = i * width + j;
      for (let o = 0; o < conv.nrOut; o++) result.data[to * conv.nrOut + o] += conv.bias[o];
      for (let a = 0; a < conv.rows; a++) {
        for (let b = 0; b < conv.columns; b++) {
          const row = (i - down) * stride - top + a, column = (j - right) * stride - left + b;
          if (row < 0 || column < 0 || column >= input.width) continue;
          places.push([to, row * input.width + column, conv.taps[a * conv.columns + b]]);
        }
      }
    }
  }
  connect(tape, result, input, places);
  return result;
}

/** A transposed convolution: height and width double. */
function convolveUp(tape, input, conv) {
  const result = new Layer(2 * input.height, 2 * input.width, conv.nrOut), places = [];
  const left = conv.columns === 3 ? 1 : 0;
  for (let pixel = 0; pixel < result.height * result.width; pixel++) result.data.set(conv.bias, pixel * conv.nrOut);
  for (let i = 0; i < input.height; i++) {
    for (let j = 0; j < input.width; j++) {
      for (let a = 0; a < 2; a++) {
        for (let b = 0; b < conv.columns; b++) {
          const column = 2 * j - left + b;
          if (column < 0 || column >= result.width) continue;
          places.push([(2 * i + a) * result.width + column, i * input.width + j, conv.taps[a * conv.columns + b]]);
        }
      }
    }
  }
  connect(tape, result, input, places);
  return result;
}

/** The concat-ELU of several layers side by side. */
function concatElus(tape, layers) {
  const [{height, width, channels}] = layers, half = layers.length * channels;
  const result = new Layer(height, width, 2 * half);
  const each = act => layers.forEach((layer, n) => {
    for (let k = 0; k < layer.data.length; k++) {
      const to = Math.floor(k / channels) * 2 * half + n * channels + k % channels;
      act(layer, k, layer.data[k], to, to + half);
    }
  });
  each((_, __, x, plus, minus) => {
    result.data[plus] = x > 0 ? x : Math.exp(x) - 1;
    result.data[minus] = x > 0 ? Math.exp(-x) - 1 : -x;
  });
  tape.push(() => each((layer, k, x, plus, minus) => {
    layer.gradient[k] += result.gradient[plus] * (x > 0 ? 1 : Math.exp(x));
    layer.gradient[k] -= result.gradient[minus] * (x > 0 ? Math.exp(-x) : 1);
  }));
  return result;
}

/** h + a sigmoid(b), where a and b are the halves of c. */
function gated(tape, h, c) {
  const result = new Layer(h.height, h.width, h.channels);
  const each = act => {
    for (let k = 0; k < h.data.length; k++) {
      const a = 2 * k - k % h.channels; // c has twice as many channels
      act(k, a, a + h.channels, sigmoid(c.data[a + h.channels]));
    }
  };
  each((k, a, b, open) => { result.data[k] = h.data[k] + c.data[a] * open; });
  tape.push(() => each((k, a, b, open) => {
    const slope = result.gradient[k];
    h.gradient[k] += slope;
    c.gradient[a] += slope * open;
    c.gradient[b] += slope * c.data[a] * open * (1 - open);
  }));
  return result;
}

/** The layer and what the class adds to all its pixels. */
function withClass(tape, input, row) {
  if (!row) return input;
  const result = new Layer(input.height, input.width, input.channels);
  result.data.set(input.data);
  addToAll(result.data, row);
  tape.push(() => { for (let k = 0; k < result.data.length; k++) input.gradient[k] += result.gradient[k]; });
  return result;
}

function gatedBlock(tape, block, h, skips) {
  const c = convolve(tape, concatElus(tape, [h]), block.convIn);
  if (block.skip) convolve(tape, concatElus(tape, skips), block.skip, {output: c});
  return gated(tape, h, convolve(tape, concatElus(tape, [c]), block.convOut));
}

/** The network over the first rows of a picture. x: Layer (H, W, 4), H divisible by 4 -> Layer (H, W, 10K) */
function forward(tape, parts, x) {
  const after = (layer, site) => withClass(tape, layer, parts.site(site));
  let u = convolve(tape, x, parts.uFirst, {down: 1});
  let ul = convolve(tape, x, parts.ulFirstAbove, {down: 1});
  convolve(tape, x, parts.ulFirstLeft, {right: 1, output: ul});
  [u, ul] = [after(u, "u0"), after(ul, "ul0")];

  const skips = [[u, ul]]; // everything made on the way down is read once on the way back
  for (let s = 0; s < NR_SCALES; s++) {
    for (const pair of parts.downBlocks[s]) {
      u = gatedBlock(tape, pair.u, u, []);
      ul = gatedBlock(tape, pair.ul, ul, [u]);
      skips.push([u, ul]);
    }
    if (s < NR_SCALES - 1) {
      u = convolve(tape, u, parts.downConvs[s].u, {stride: 2});
      ul = convolve(tape, ul, parts.downConvs[s].ul, {stride: 2});
      skips.push([u, ul]);
    }
  }
  [u, ul] = skips.pop();
  [u, ul] = [after(u, "u_middle"), after(ul, "ul_middle")];
  for (let s = NR_SCALES - 1; s >= 0; s--) {
    for (const pair of parts.upBlocks[s]) {
      const [uSkip, ulSkip] = skips.pop();
      u = gatedBlock(tape, pair.u, u, [uSkip]);
      ul = gatedBlock(tape, pair.ul, ul, [u, ulSkip]);
    }
    if (s > 0) [u, ul] = [convolveUp(tape, u, parts.upConvs[s - 1].u), convolveUp(tape, ul, parts.upConvs[s - 1].ul)];
  }
  const elus = concatElus(tape, [ul]); // the head reads its first half, elu(ul)
  const {nrOut, nrIn, bias, taps: [tap]} = parts.head;
  const weight = new Float64Array(nrOut * 2 * nrIn);
  for (let o = 0; o < nrOut; o++) weight.set(tap.subarray(o * nrIn, (o + 1) * nrIn), o * 2 * nrIn);
  return convolve(tape, elus, {rows: 1, columns: 1, nrIn: 2 * nrIn, nrOut, bias, taps: [weight]});
}

/** The brightness that a mixture expects, the mean of its three colours, each given the colours before it in bytes (3);
 * -> its gradient with respect to the parameters (10K). */
function brightnessGradient(params, bytes) {
  const k = params.length / 10, x = Array.from(bytes, fromByte), gradient = new Float64Array(params.length);
  const logits = Array.from(params.subarray(0, k)), all = logSumExp(logits);
  const weights = logits.map(logit => Math.exp(logit - all));
  const means = weights.map((_, c) => [0, 1, 2].reduce((sum, n) => sum + coupledMean(params, k, n, c, x) / 3, 0));
  const expected = means.reduce((sum, mean, c) => sum + weights[c] * mean, 0);
  for (let c = 0; c < k; c++) {
    gradient[c] = weights[c] * (means[c] - expected);
    for (let colour = 0; colour < 3; colour++) {
      gradient[k + 3 * k * colour + c] = weights[c] / 3;
      const place = 3 * k + 3 * k * colour + c; // red in green's mean, red in blue's, green in blue's
      gradient[place] = weights[c] / 3 * (1 - Math.tanh(params[place]) ** 2) * x[colour === 2 ? 1 : 0];
    }
  }
  return gradient;
}

/**
 * What pixel (row, column) of a picture has looked at. bytes: (S, S, 3).
 * -> {params (10K), seen (S, S)}: how much the expected brightness would change with each colour of each pixel, as the
 * sum of the three slopes' absolute values; 0 wherever it does not look, so at all that comes later
 */
function lookBack(weights, label, bytes, row, column) {
  const parts = networkParts(weights, label), {size} = parts, early = parts.site("x"), tape = [];
  const x = new Layer(4 * Math.ceil((row + 1) / 4), size, INPUTS); // later rows are not seen
  for (let pixel = 0; pixel < x.height * size; pixel++) {
    for (let c = 0; c < 3; c++) {
      x.data[pixel * INPUTS + c] = fromByte(bytes[pixel * 3 + c]) + (early ? early[c * size ** 2 + pixel] : 0);
    }
    x.data[pixel * INPUTS + 3] = 1;
  }
  const out = forward(tape, parts, x), place = row * size + column;
  const params = out.data.slice(place * out.channels, (place + 1) * out.channels);
  out.gradient.set(brightnessGradient(params, bytes.subarray(place * 3, place * 3 + 3)), place * out.channels);
  for (const back of tape.reverse()) back();
  const seen = new Float64Array(size ** 2);
  for (let pixel = 0; pixel < x.height * size; pixel++) {
    for (let c = 0; c < 3; c++) seen[pixel] += Math.abs(x.gradient[pixel * INPUTS + c]);
  }
  return {params, seen};
}
