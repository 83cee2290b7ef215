"use strict";
// The cached sampler of utils/sampling.py, for one picture: each activation is computed once, as soon as what it
// depends on is known, and kept. The u stream knows the rows above, one row at a time; the ul stream also knows what
// lies to the left, one pixel at a time. Rows of activations are pixel after pixel: (W, C).

const NR_SCALES = 3;
const INPUTS = 4; // three colours, and a one, which no padding has

/** ELU of x and of -x side by side: `from` (C) at `at` -> `to` (2C) at `start`. */
function concatElu(to, start, from, at, channels) {
  for (let c = 0; c < channels; c++) {
    const x = from[at + c], below = Math.exp(-Math.abs(x)) - 1;
    to[start + c] = x > 0 ? x : below;
    to[start + channels + c] = x > 0 ? below : -x;
  }
}

/**
 * out[at + o] += sum over i of weight[o, i] x[from + i]; weight: (nrOut, n). Nearly all the time of a picture goes here.
 * Four sums at once, because each waits for its last addition.
 */
function accumulate(out, at, nrOut, weight, x, from, n) {
  let o = 0, w = 0;
  for (; o + 4 <= nrOut; o += 4, w += 4 * n) {
    let sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    for (let i = 0; i < n; i++) {
      const value = x[from + i], k = w + i;
      sum0 += value * weight[k];
      sum1 += value * weight[k + n];
      sum2 += value * weight[k + 2 * n];
      sum3 += value * weight[k + 3 * n];
    }
    out[at + o] += sum0;
    out[at + o + 1] += sum1;
    out[at + o + 2] += sum2;
    out[at + o + 3] += sum3;
  }
  for (; o < nrOut; o++, w += n) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += x[from + i] * weight[w + i];
    out[at + o] += sum;
  }
}

/** Some columns of a (nrOut, nrIn) matrix, those where `keep(column)`. */
function columnsOf(matrix, nrIn, keep) {
  return matrix.filter((_, n) => keep(n % nrIn));
}

/** One row of a kernel as a matrix (nrOut, columns * nrIn): neighbouring pixels are neighbouring numbers. */
function rowOfKernel(conv, row) {
  const width = conv.columns * conv.nrIn, matrix = new Float64Array(conv.nrOut * width);
  for (let column = 0; column < conv.columns; column++) {
    const tap = conv.taps[row * conv.columns + column];
    for (let o = 0; o < conv.nrOut; o++) {
      matrix.set(tap.subarray(o * conv.nrIn, (o + 1) * conv.nrIn), o * width + column * conv.nrIn);
    }
  }
  return matrix;
}

/** A convolution whose outputs the class scales and shifts: c (1 + scale) + shift; either may be null. */
function modulated(conv, scale, shift) {
  const gain = o => 1 + (scale ? scale[o] : 0);
  const bias = conv.bias.map((b, o) => b * gain(o) + (shift ? shift[o] : 0));
  const taps = scale ? conv.taps.map(tap => tap.map((w, n) => w * gain(Math.floor(n / conv.nrIn)))) : conv.taps;
  return {...conv, bias, taps};
}

/** glu: h + a sigmoid(b), where a and b are the halves of c; `h` (C) at `at` -> `out` at `to`. */
function gate(out, to, h, at, c, from, channels) {
  for (let n = 0; n < channels; n++) out[to + n] = h[at + n] + c[from + n] * sigmoid(c[from + channels + n]);
}

/** A down-shifted convolution, two rows high, that is fed row after row and remembers the one above. */
class RowConv {
  constructor(conv, width, stride = 1) {
    this.conv = conv;
    this.upper = rowOfKernel(conv, 0);
    this.lower = rowOfKernel(conv, 1);
    this.stride = stride;
    this.left = (conv.columns - 1) / 2; // as many columns of zeros on either side
    this.width = width;
    this.above = new Float64Array((width + conv.columns - 1) * conv.nrIn);
    this.row = new Float64Array(this.above.length);
    this.out = new Float64Array((width / stride) * conv.nrOut);
  }

  /** Where pixel j of the row to come stands in `row`. */
  at(j) {
    return (this.left + j) * this.conv.nrIn;
  }

  /** The convolution of the row that was filled in, and of the one before: (W / stride, C'). */
  run() {
    const {nrIn, nrOut, columns, bias} = this.conv, n = columns * nrIn;
    for (let j = 0; j < this.width / this.stride; j++) {
      this.out.set(bias, j * nrOut);
      accumulate(this.out, j * nrOut, nrOut, this.upper, this.above, j * this.stride * nrIn, n);
      accumulate(this.out, j * nrOut, nrOut, this.lower, this.row, j * this.stride * nrIn, n);
    }
    this.forget();
    return this.out;
  }

  /** The row that was filled in is the one above from now on. */
  forget() {
    [this.above, this.row] = [this.row, this.above];
  }
}

/** A gated block of the u stream, a row at a time. */
class RowBlock {
  constructor(block, width) {
    this.width = width;
    this.channels = block.convIn.nrOut;
    this.convIn = new RowConv(block.convIn, width);
    this.convOut = new RowConv(block.convOut, width);
    this.skip = block.skip;
    this.elus = new Float64Array(2 * this.channels);
    this.out = new Float64Array(width * this.channels);
  }

  run(h, skip) { // (W, F) -> (W, F)
    const {width, channels, convIn, convOut, elus, out} = this;
    for (let j = 0; j < width; j++) concatElu(convIn.row, convIn.at(j), h, j * channels, channels);
    const c = convIn.run();
    for (let j = 0; j < width; j++) {
      if (skip) {
        concatElu(elus, 0, skip, j * channels, channels);
        for (let o = 0; o < channels; o++) c[j * channels + o] += this.skip.bias[o];
        accumulate(c, j * channels, channels, this.skip.taps[0], elus, 0, 2 * channels);
      }
      concatElu(convOut.row, convOut.at(j), c, j * channels, channels);
    }
    const gates = convOut.run();
    for (let j = 0; j < width; j++) gate(out, j * channels, h, j * channels, gates, 2 * j * channels, channels);
    return out;
  }
}

/**
 * A 2x2 down-right-shifted convolution that is fed pixel after pixel. `row` holds the pixels seen last, one column of
 * zeros at its left: up to the current pixel those of this row, from there on still those of the row above, whose
 * share `startRow` has taken.
 */
class PixelConv {
  constructor(conv, width, stride = 1) {
    this.conv = conv;
    this.upper = rowOfKernel(conv, 0);
    this.lower = rowOfKernel(conv, 1);
    this.stride = stride;
    this.width = width;
    this.row = new Float64Array((width + 1) * conv.nrIn);
    this.known = new Float64Array((width / stride) * conv.nrOut);
    this.out = new Float64Array(conv.nrOut);
  }

  startRow() {
    const {nrIn, nrOut, bias} = this.conv;
    for (let j = 0; j < this.width / this.stride; j++) {
      this.known.set(bias, j * nrOut);
      accumulate(this.known, j * nrOut, nrOut, this.upper, this.row, j * this.stride * nrIn, 2 * nrIn);
    }
  }

  /** Where pixel j stands in `row`. */
  at(j) {
    return (j + 1) * this.conv.nrIn;
  }

  run(j) { // -> (C')
    const {nrIn, nrOut} = this.conv, from = (j / this.stride) * nrOut;
    for (let o = 0; o < nrOut; o++) this.out[o] = this.known[from + o];
    accumulate(this.out, 0, nrOut, this.lower, this.row, j * nrIn, 2 * nrIn);
    return this.out;
  }
}

/** A gated block of the ul stream, a pixel at a time. It reads u, and on the way back a skip of its own stream. */
class PixelBlock {
  constructor(block, width) {
    const channels = block.convIn.nrOut, {nrIn, bias, taps: [skip]} = block.skip;
    this.width = width;
    this.channels = channels;
    this.convIn = new PixelConv(block.convIn, width);
    this.convOut = new PixelConv(block.convOut, width);
    // concat-ELU of [u, ul skip] is [u, ul skip, -u, -ul skip]: take the columns apart
    const ofU = column => column % (nrIn / 2) < channels;
    this.fromU = columnsOf(skip, nrIn, ofU);
    this.fromUl = columnsOf(skip, nrIn, column => !ofU(column));
    this.skipBias = bias;
    this.elus = new Float64Array(2 * channels);
    this.out = new Float64Array(channels);
  }

  startRow(u) { // (W, F)
    const {channels, elus} = this, {known} = this.convIn;
    this.convIn.startRow();
    for (let j = 0; j < this.width; j++) {
      concatElu(elus, 0, u, j * channels, channels);
      for (let o = 0; o < channels; o++) known[j * channels + o] += this.skipBias[o];
      accumulate(known, j * channels, channels, this.fromU, elus, 0, 2 * channels);
    }
    this.convOut.startRow();
  }

  run(j, h, skip) { // (F) -> (F)
    const {channels, convIn, convOut, elus} = this;
    concatElu(convIn.row, convIn.at(j), h, 0, channels);
    const c = convIn.run(j);
    if (skip) {
      concatElu(elus, 0, skip, 0, channels);
      accumulate(c, 0, channels, this.fromUl, elus, 0, 2 * channels);
    }
    concatElu(convOut.row, convOut.at(j), c, 0, channels);
    gate(this.out, 0, h, 0, convOut.run(j), 0, channels);
    return this.out;
  }
}

/**
 * The parts of the network that is told `label`, named as in utils/model.py. The class scales and shifts the second
 * convolution of a block, in the order in which data reaches the blocks: u, ul, u, ul, ...
 */
function networkParts(weights, label) {
  const {config, tensors} = weights;
  const conv = name => convolution(weights, name), site = name => classRow(weights, name, label);
  const [biases, scales, shifts] = ["bias", "scale", "shift"].map(site);
  const gates = 2 * config.nr_filters;
  let n = 0;

  function block(name) {
    const part = row => row && row.subarray(n * gates, (n + 1) * gates);
    const [bias, scale, shift] = [biases, scales, shifts].map(part);
    const both = bias && shift ? bias.map((b, o) => b + shift[o]) : bias || shift;
    n += 1;
    return {
      convIn: conv(`${name}.conv_in`),
      convOut: modulated(conv(`${name}.conv_out`), scale, both),
      skip: `${name}.skip.conv.bias` in tensors ? conv(`${name}.skip`) : null,
    };
  }

  function stages(name, nrBlocks, scales) {
    const found = [];
    for (const s of scales) {
      const numbers = [...Array(nrBlocks(s)).keys()];
      found[s] = numbers.map(b => ({u: block(`${name}.${s}.${b}.u`), ul: block(`${name}.${s}.${b}.ul`)}));
    }
    return found;
  }

  const between = name =>
    [...Array(NR_SCALES - 1).keys()].map(s => ({u: conv(`${name}.${s}.u`), ul: conv(`${name}.${s}.ul`)}));
  return {
    size: config.image_size,
    uFirst: conv("u_first"),
    ulFirstAbove: conv("ul_first_above"),
    ulFirstLeft: conv("ul_first_left"),
    downBlocks: stages("down_blocks", () => config.nr_resnet, [0, 1, 2]),
    downConvs: between("down_convs"),
    upBlocks: stages("up_blocks", s => config.nr_resnet + (s < NR_SCALES - 1 ? 1 : 0), [2, 1, 0]),
    upConvs: between("up_convs"),
    head: modulated(conv("head"), null, site("params")),
    site,
  };
}

/** out (n times C) += row (C) for each pixel; nothing if the site is not in use. */
function addToAll(out, row) {
  if (row) for (let n = 0; n < out.length; n++) out[n] += row[n % row.length];
}

/** The network with a memory: `startRow(0)`, `params(0)`, `put(0, colours)`, `params(1)`, ..., `startRow(1)`, ... */
class CachedNetwork {
  constructor(weights, label) {
    const parts = networkParts(weights, label), width = parts.size;
    const channels = parts.uFirst.nrOut;
    Object.assign(this, {parts, width, channels});
    this.early = parts.site("x"); // (3, H, W) or null
    this.row = new Float64Array(width * INPUTS); // the current row: colours, and ones
    this.uFirst = new RowConv(parts.uFirst, width);
    const none = parts.ulFirstAbove.taps.map(tap => new Float64Array(tap.length)); // its one row is the lower of two
    this.above = new RowConv({...parts.ulFirstAbove, rows: 2, taps: [...none, ...parts.ulFirstAbove.taps]}, width);
    this.u0 = new Float64Array(width * channels);
    this.ul0 = new Float64Array(width * channels);

    const cached = (pairs, s) =>
      pairs.map(({u, ul}) => ({u: new RowBlock(u, width >> s), ul: new PixelBlock(ul, width >> s)}));
    this.downBlocks = parts.downBlocks.map(cached);
    this.upBlocks = parts.upBlocks.map(cached);
    this.downConvs = parts.downConvs.map(({u, ul}, s) =>
      ({u: new RowConv(u, width >> s, 2), ul: new PixelConv(ul, width >> s, 2)}));
    // what the coarser scale last sent up: two rows of u, and two of ul that fill two columns at a time
    this.uUp = parts.upConvs.map((_, s) => [0, 1].map(() => new Float64Array((width >> s) * channels)));
    this.ulUp = parts.upConvs.map((_, s) => [0, 1].map(() => new Float64Array((width >> s) * channels)));
    this.ul = new Float64Array(channels);
    this.elus = new Float64Array(channels);
    this.out = new Float64Array(parts.head.nrOut);
  }

  /** Brings the u stream to row i, and readies the ul stream for the row's pixels. */
  startRow(i) {
    this.i = i;
    this.firstFeatures();
    let u = this.u0;
    const rows = [];
    for (let s = 0; s < NR_SCALES; s++) {
      if (s > 0) {
        const {u: uConv, ul: ulConv} = this.downConvs[s - 1];
        uConv.row.set(u, uConv.at(0));
        if ((i >> (s - 1)) % 2) { // an odd row leaves the coarser scale as it is
          uConv.forget();
          break;
        }
        u = uConv.run();
        ulConv.startRow();
      }
      rows.push([u]);
      for (const block of this.downBlocks[s]) {
        u = block.u.run(u, null);
        block.ul.startRow(u);
        rows[s].push(u);
      }
    }
    for (let s = rows.length - 1; s >= 0; s--) {
      if (s === NR_SCALES - 1) {
        u = rows[s].pop();
        addToAll(u, this.parts.site("u_middle"));
      } else {
        u = this.uUp[s][(i >> s) % 2];
      }
      for (const block of this.upBlocks[s]) {
        u = block.u.run(u, rows[s].pop());
        block.ul.startRow(u);
      }
      if (s > 0) this.sendUp(s - 1, u);
    }
  }

  /** u0 of the row, and all of ul0 but what comes from the pixel at the left. */
  firstFeatures() {
    const {i, width, channels, parts, row, u0, ul0} = this, left = parts.ulFirstLeft;
    u0.fill(0);
    ul0.fill(0);
    if (i > 0) {
      for (const conv of [this.uFirst, this.above]) conv.row.set(row, conv.at(0)); // the picture's row i - 1
      u0.set(this.uFirst.run());
      ul0.set(this.above.run());
    }
    for (let j = 1; j < width; j++) {
      for (let o = 0; o < channels; o++) ul0[j * channels + o] += left.bias[o];
      accumulate(ul0, j * channels, channels, left.taps[0], row, (j - 1) * INPUTS, INPUTS);
    }
    addToAll(u0, parts.site("u0"));
    addToAll(ul0, parts.site("ul0"));
    row.fill(0);
  }

  /** The transposed convolution of a row of scale s + 1: two rows, twice as wide. */
  sendUp(s, u) {
    const conv = this.parts.upConvs[s].u, {channels} = this, width = this.width >> s;
    for (const a of [0, 1]) {
      const out = this.uUp[s][a];
      for (let j = 0; j < width; j++) {
        out.set(conv.bias, j * channels);
        for (let column = (j + 1) % 2; column < 3; column += 2) {
          const from = (j + 1 - column) / 2; // of its three columns an even j takes the middle one, an odd j the others
          if (from < width / 2) {
            accumulate(out, j * channels, channels, conv.taps[3 * a + column], u, from * channels, channels);
          }
        }
      }
    }
  }

  /** The mixture of pixel (i, j), given the pixels put so far: (10K), valid until the next call. */
  params(j) {
    const {i, channels, parts} = this;
    let ul = this.ul;
    for (let o = 0; o < channels; o++) ul[o] = this.ul0[j * channels + o];
    if (j > 0) accumulate(ul, 0, channels, parts.ulFirstLeft.taps[1], this.row, (j - 1) * INPUTS, INPUTS);
    const pixels = [];
    for (let s = 0; s < NR_SCALES; s++) {
      if (s > 0) {
        const {ul: conv} = this.downConvs[s - 1], column = j >> (s - 1);
        conv.row.set(ul, conv.at(column));
        if ((i >> (s - 1)) % 2 || column % 2) break;
        ul = conv.run(column);
      }
      pixels.push([ul]);
      for (const block of this.downBlocks[s]) {
        ul = block.ul.run(j >> s, ul, null);
        pixels[s].push(ul);
      }
    }
    for (let s = pixels.length - 1; s >= 0; s--) {
      const column = j >> s;
      if (s === NR_SCALES - 1) {
        ul = pixels[s].pop();
        addToAll(ul, parts.site("ul_middle"));
      } else {
        ul = this.ulUp[s][(i >> s) % 2].subarray(column * channels, (column + 1) * channels);
      }
      for (const block of this.upBlocks[s]) ul = block.ul.run(column, ul, pixels[s].pop());
      if (s > 0) {
        const conv = parts.upConvs[s - 1].ul;
        for (const a of [0, 1]) {
          for (const b of [0, 1]) {
            const to = (2 * column + b) * channels, out = this.ulUp[s - 1][a];
            out.set(conv.bias, to);
            accumulate(out, to, channels, conv.taps[2 * a + b], ul, 0, channels);
          }
        }
      }
    }
    for (let o = 0; o < channels; o++) this.elus[o] = ul[o] > 0 ? ul[o] : Math.exp(ul[o]) - 1;
    this.out.set(parts.head.bias);
    accumulate(this.out, 0, this.out.length, parts.head.taps[0], this.elus, 0, channels);
    return this.out;
  }

  /** Tells the colours (3) of pixel (i, j), each between -1 and 1. */
  put(j, colours) {
    const area = this.width ** 2, place = this.i * this.width + j;
    for (let c = 0; c < 3; c++) {
      this.row[j * INPUTS + c] = colours[c] + (this.early ? this.early[c * area + place] : 0);
    }
    this.row[j * INPUTS + 3] = 1;
  }
}
