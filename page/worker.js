"use strict";
// A worker's side: it draws, judges and looks back, and posts what it has as soon as it has it. Every message names a
// job; the newest counts, and an older one ends at its next row.

let newestJob = 0, weightsHere = null;

/** Lets in the messages that have come meanwhile. A timer would wait for four milliseconds. */
const breathe = () => new Promise(resolve => {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    resolve();
  };
  port2.postMessage(null);
});

/** Feeds a network with a picture, row after row. `pixel(x, params, place)` puts its colours into x (3), `row(i)` is
 * told when one is done. -> whether it came to the end, and no newer job before it */
async function walk(job, label, pixel, row) {
  await breathe();
  if (job !== newestJob) return false;
  const network = new CachedNetwork(weightsHere, label), size = network.width, x = new Float64Array(3);
  for (let i = 0; i < size; i++) {
    network.startRow(i);
    for (let j = 0; j < size; j++) {
      pixel(x, network.params(j), i * size + j);
      network.put(j, x);
    }
    row(i);
    await breathe();
    if (job !== newestJob) return false;
  }
  return true;
}

const jobs = {
  /** Draws `pictures`, a list of their numbers; the rows in `prefix`, bytes (h, S, 3), are given. */
  async draw({job, label, temperature, seed, pictures, prefix}) {
    const {nr_logistic_mix: k, image_size: size} = weightsHere.config, noise = new Float64Array(k + 3);
    for (const picture of pictures) {
      const bytes = new Uint8Array(3 * size * size);
      bytes.set(prefix);
      const whole = await walk(job, label, (x, params, place) => {
        if (3 * place < prefix.length) {
          for (let c = 0; c < 3; c++) x[c] = fromByte(bytes[3 * place + c]);
          return;
        }
        uniforms(noise, seed, picture, place);
        samplePixel(x, params, noise, temperature);
        for (let c = 0; c < 3; c++) bytes[3 * place + c] = toByte(x[c]);
      }, i => postMessage({job, picture, row: i, bytes: bytes.slice(3 * size * i, 3 * size * (i + 1))}));
      if (!whole) return;
    }
  },

  /** The log-probability of each pixel of a picture, bytes (S, S, 3), under each of `labels`, in nats: (S, S). */
  async judge({job, labels, bytes}) {
    for (const label of labels) {
      const nats = new Float64Array(bytes.length / 3);
      const whole = await walk(job, label, (x, params, place) => {
        const pixel = bytes.subarray(3 * place, 3 * place + 3);
        nats[place] = logProb(params, pixel);
        for (let c = 0; c < 3; c++) x[c] = fromByte(pixel[c]);
      }, () => {});
      if (!whole) return;
      postMessage({job, label, nats});
    }
  },

  async look({job, label, bytes, row, column}) {
    await breathe();
    if (job === newestJob) postMessage({job, ...lookBack(weightsHere, label, bytes, row, column)});
  },
};

if (typeof document === "undefined") {
  onmessage = ({data}) => {
    newestJob = data.job;
    if (data.kind === "weights") weightsHere = readWeights(data.bytes);
    else jobs[data.kind](data).catch(error => setTimeout(() => { throw error; })); // to the page
  };
}
