// A build in Node.js: node onnxruntime.mjs BUILD IMAGE.png...   (npm install onnxruntime-node pngjs)
//
// Everything about the input is read from the contract in the build's manifest.json. Resizing is left to whoever has
// images of another size, for its filter has to be Pillow's: give images of the size that the contract crops to.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";

const [build, ...images] = process.argv.slice(2);
const { contract } = JSON.parse(readFileSync(join(build, "manifest.json"), "utf8"));
if (contract.schema !== "fimaq-deploy/contract/1") throw new Error(`unknown contract ${contract.schema}`);
const session = await ort.InferenceSession.create(join(build, "model.onnx"));

function prepared(file) {
  const { size } = contract.preprocessing.crop;
  const { scale, mean, std } = contract.preprocessing;
  const channels = contract.input.shape[1];
  const { width, height, data } = PNG.sync.read(readFileSync(file)); // RGBA, grey as three equal channels
  if (height !== size[0] || width !== size[1]) {
    throw new Error(`${file} has ${height}×${width} pixels: resize it to ${size.join("×")} with Pillow's ` +
      `${contract.preprocessing.interpolation} filter first`);
  }
  const numbers = new Float32Array(channels * height * width);
  for (let channel = 0; channel < channels; channel++) {
    for (let place = 0; place < height * width; place++) {
      const pixel = data[4 * place + channel];
      numbers[channel * height * width + place] =
        Math.fround(Math.fround(Math.fround(pixel * Math.fround(scale)) - mean[channel]) / std[channel]);
    }
  }
  return new ort.Tensor("float32", numbers, [1, channels, height, width]);
}

for (const file of images) {
  const answers = await session.run({ [contract.input.name]: prepared(file) });
  const logits = Array.from(answers[contract.outputs[0].name].data);
  const highest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const best = logits.indexOf(highest);
  const name = contract.classes[best] ?? String(best);
  console.log(JSON.stringify({ image: file, label: best, class: name, probability: powers[best] / total, logits }));
}
