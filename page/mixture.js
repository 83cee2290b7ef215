"use strict";
// The discretized mixture of logistics of a pixel, as in utils/mixture.py. `params` are its 10 K numbers: K mixture
// logits, then for each of red, green and blue K means, K log-scales and K coefficients. Colours lie between -1 and 1.

const MIN_LOG_SCALE = -7, MAX_LOG_SCALE = 60;

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const sigmoid = x => 1 / (1 + Math.exp(-x));
const toByte = x => Math.round((clamp(x, -1, 1) + 1) * 127.5);
const fromByte = byte => byte / 127.5 - 1;

/** The means that a component's colour has: green's depends on red, blue's on red and on green. */
function coupledMean(params, k, colour, component, x) {
  const mean = n => params[k + 3 * k * n + component];
  const coefficient = n => Math.tanh(params[3 * k + 3 * k * n + component]);
  if (colour === 0) return mean(0);
  if (colour === 1) return mean(1) + coefficient(0) * x[0];
  return mean(2) + coefficient(1) * x[0] + coefficient(2) * x[1];
}

function logScale(params, k, colour, component) {
  return clamp(params[2 * k + 3 * k * colour + component], MIN_LOG_SCALE, MAX_LOG_SCALE);
}

/**
 * Draws a pixel into x (3): a component by Gumbel-max, then each colour by the inverse of its distribution function.
 * @param {Float64Array} noise K + 3 uniform random numbers
 * @param {number} temperature multiplies all randomness
 */
function samplePixel(x, params, noise, temperature) {
  const k = params.length / 10;
  const uniform = n => clamp(noise[n], 1e-5, 1 - 1e-5);
  let component = 0, highest = -Infinity;
  for (let c = 0; c < k; c++) {
    const score = params[c] - temperature * Math.log(-Math.log(uniform(c)));
    if (score > highest) [highest, component] = [score, c];
  }
  for (let colour = 0; colour < 3; colour++) {
    const u = uniform(k + colour), logistic = Math.log(u / (1 - u));
    const spread = temperature * Math.exp(logScale(params, k, colour, component)) * logistic;
    x[colour] = fromByte(toByte(coupledMean(params, k, colour, component, x) + spread));
  }
}

/** The log of the mass that a logistic gives the bin of a byte; the bins at the edges are open outwards. */
function logMass(byte, mean, logScale) {
  const x = fromByte(byte), inverse = Math.exp(-logScale);
  const a = byte === 255 ? Infinity : (x + 1 / 255 - mean) * inverse;
  const b = byte === 0 ? Infinity : (mean - x + 1 / 255) * inverse;
  // sigmoid(a) - sigmoid(-b) as a product, exact where a difference of nearly equal numbers would not be
  const between = a === Infinity || b === Infinity ? 1 : -Math.expm1(-(2 / 255) * inverse);
  return Math.min(a, 0) - Math.log1p(Math.exp(-Math.abs(a))) + Math.min(b, 0) - Math.log1p(Math.exp(-Math.abs(b)))
    + Math.log(between);
}

/** The log of the sum of exponentials. */
function logSumExp(values) {
  const most = Math.max(...values);
  return most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

/** What each component says of a pixel: log weight + log mass of the first `colours` of bytes (3); they sum, as
 * probabilities, to that of these colours. -> K numbers, in nats */
function logComponents(params, bytes, colours = 3) {
  const k = params.length / 10, logits = Array.from(params.subarray(0, k)), all = logSumExp(logits);
  const x = Array.from(bytes, fromByte);
  return logits.map((logit, component) => {
    let sum = logit - all;
    for (let colour = 0; colour < colours; colour++) {
      const mean = coupledMean(params, k, colour, component, x);
      sum += logMass(bytes[colour], mean, logScale(params, k, colour, component));
    }
    return sum;
  });
}

/** The log-probability of a pixel, in nats. */
function logProb(params, bytes) {
  return logSumExp(logComponents(params, bytes));
}

/**
 * What the mixture expects of a colour, given the colours before it in bytes (3).
 * -> for each component {weight, mean, scale, masses}: the masses (256) are its share in the probability of each byte
 */
function expectations(params, bytes, colour) {
  const k = params.length / 10, x = Array.from(bytes, fromByte);
  const logs = logComponents(params, bytes, colour), all = logSumExp(logs);
  return logs.map((log, component) => {
    const weight = Math.exp(log - all), scale = logScale(params, k, colour, component);
    const mean = coupledMean(params, k, colour, component, x);
    const masses = Float64Array.from({length: 256}, (_, byte) => weight * Math.exp(logMass(byte, mean, scale)));
    return {weight, mean, scale: Math.exp(scale), masses};
  });
}
