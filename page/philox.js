"use strict";
// Random numbers without a state: Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").
// A counter of four words and a key of two give four random words, so the numbers of a pixel depend on the seed, the
// picture's number and the pixel's place alone, whichever worker asks, and when. kit/page.py draws the same.

/** The upper 32 bits of the 64 of a * b, for whole numbers from 0 to 2^32 - 1. */
function upperHalf(a, b) {
  const aLow = a & 0xffff, aHigh = a >>> 16, bLow = b & 0xffff, bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  return aHigh * bHigh + (middle >>> 16) + ((aLow * bHigh + (middle & 0xffff)) >>> 16);
}

/** Four words for a counter [c0, c1, c2, c3] under a key [k0, k1]; all are whole numbers from 0 to 2^32 - 1. */
function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const upper0 = upperHalf(0xd2511f53, c0), lower0 = Math.imul(0xd2511f53, c0);
    const upper2 = upperHalf(0xcd9e8d57, c2), lower2 = Math.imul(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(upper2 ^ c1 ^ k0) >>> 0, lower2 >>> 0, (upper0 ^ c3 ^ k1) >>> 0, lower0 >>> 0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * Fills `out` with the uniform random numbers of a pixel, each between 0 and 1, neither of them included.
 * @param {number} seed a whole number from 0 to 2^53 - 1
 * @param {number} picture its number, from 0
 * @param {number} pixel its place in reading order, from 0
 */
function uniforms(out, seed, picture, pixel) {
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
  for (let n = 0; n < out.length; n += 4) {
    const words = philox([n / 4, pixel, picture, 0], key);
    for (let w = 0; w < 4 && n + w < out.length; w++) out[n + w] = (words[w] + 0.5) / 2 ** 32;
  }
}
