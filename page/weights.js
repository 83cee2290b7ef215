"use strict";
// The weights in this page: a safetensors file (eight bytes of length, a JSON header, then the numbers) in float16.

/** The CRC-32 of bytes, which finds damage. It is worked out here because browsers offer SHA-256 over https only. */
function crc32(bytes) {
  const table = Int32Array.from({length: 256}, (_, byte) => {
    for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
    return byte;
  });
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

/** The bytes that a base64 text stands for; throws an Error unless these are `length` and have the checksum. */
function decodeWeights(base64, length, checksum) {
  if (base64.length !== 4 * Math.ceil(length / 3)) throw new Error("some are missing");
  let text;
  try {
    text = atob(base64);
  } catch {
    throw new Error("they hold a letter that no weights have");
  }
  const bytes = Uint8Array.from(text, letter => letter.charCodeAt(0));
  if (crc32(bytes) !== checksum) throw new Error("their checksum is another");
  return bytes;
}

const POWERS = Float64Array.from({length: 32}, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));

/** The float64 of a float16's 16 bits: a sign, 5 bits of exponent, 10 of fraction. */
function fromFloat16(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const value = (exponent ? 1024 + fraction : fraction) * POWERS[exponent];
  return bits & 0x8000 ? -value : value;
}

/**
 * Reads a safetensors file. -> {config, classNames, tensors, convolutions}; tensors[name] is {shape, data: Float64Array}.
 * A number in JavaScript is a float64, so all is computed in that, and so does `generate --for-page`.
 */
function readWeights(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const {__metadata__: metadata, ...entries} = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const {config, class_names: classNames} = JSON.parse(metadata["conditional-pixelcnn"]);
  const tensors = {};
  for (const [name, {shape, data_offsets: [from, to]}] of Object.entries(entries)) {
    const data = new Float64Array((to - from) / 2);
    for (let n = 0; n < data.length; n++) data[n] = fromFloat16(view.getUint16(start + from + 2 * n, true));
    tensors[name] = {shape, data};
  }
  return {config, classNames, tensors, convolutions: new Map()};
}

/** The convolution of this name, worked out at its first use. */
function convolution({tensors, convolutions}, name) {
  if (!convolutions.has(name)) convolutions.set(name, normalised(tensors, name));
  return convolutions.get(name);
}

/**
 * A convolution with its weight norm worked out (Salimans and Kingma 2016): the kernel is g v / |v|.
 * -> {rows, columns, nrIn, nrOut, bias, taps}: each of the kernel's rows x columns taps is a Float64Array (nrOut, nrIn).
 */
function normalised(tensors, name) {
  const transposed = name.startsWith("up_convs");
  const bias = tensors[`${name}.conv.bias`].data, gain = tensors[`${name}.conv.parametrizations.weight.original0`].data;
  const {shape, data} = tensors[`${name}.conv.parametrizations.weight.original1`];
  const [nrOut, nrIn] = transposed ? [shape[1], shape[0]] : shape, [, , rows, columns] = shape;
  const strideOut = rows * columns * (transposed ? 1 : nrIn), strideIn = rows * columns * (transposed ? nrOut : 1);
  const squares = new Float64Array(nrOut);
  for (let o = 0; o < nrOut; o++) {
    for (let i = 0; i < nrIn; i++) {
      for (let t = 0; t < rows * columns; t++) squares[o] += data[o * strideOut + i * strideIn + t] ** 2;
    }
  }
  const taps = Array.from({length: rows * columns}, (_, t) => {
    const tap = new Float64Array(nrOut * nrIn);
    for (let o = 0; o < nrOut; o++) {
      const factor = gain[o] / Math.sqrt(squares[o]);
      for (let i = 0; i < nrIn; i++) tap[o * nrIn + i] = factor * data[o * strideOut + i * strideIn + t];
    }
    return tap;
  });
  return {rows, columns, nrIn, nrOut, bias, taps};
}

/** What the class adds at a site of `utils/fusion.py`: a Float64Array, or null where that site is not in use. */
function classRow({tensors}, site, label) {
  const table = tensors[`fusion.maps.${site}.weight`];
  return table ? table.data.subarray(label * table.shape[1], (label + 1) * table.shape[1]) : null;
}
