// CompreFace's official SDK, as its documentation uses it; nothing here knows of the gateway.
// node compreface.mjs SERVER PORT KEYS STEPS: prints the answers, one JSON value a line.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.SDK_FOLDER;
const entry = createRequire(join(folder, "package.json")).resolve("@exadel/compreface-js-sdk");
const { CompreFace } = await import(pathToFileURL(entry).href);

const [server, port, keys, steps] = process.argv.slice(2);
const [recognitionKey, verificationKey] = keys.split(",");
const compreFace = new CompreFace(server, port, {});
const recognition = compreFace.initFaceRecognitionService(recognitionKey);
const verification = compreFace.initFaceVerificationService(verificationKey);

const doing = {
  add: (photo, subject) => recognition.getFaceCollection().add(photo, subject, {}),
  recognize: (photo) => recognition.recognize(photo, { limit: 1, prediction_count: 1 }),
  verify: (photo, id) => recognition.getFaceCollection().verify(photo, id, {}),
  compare: (one, other) => verification.verify(one, other, {}),
  rename: (before, after) => recognition.getSubjects().rename(before, after),
  deleteSubject: (subject) => recognition.getSubjects().delete(subject),
  deleteAll: (subject) => recognition.getFaceCollection().delete_all_subject(subject),
  deleteMany: (...ids) => recognition.getFaceCollection().delete_multiple_images(ids),
};

const out = console.log;
console.log = () => {}; // the SDK prints its key
for (const [step, ...args] of JSON.parse(steps)) {
  try {
    const answer = await doing[step](...args);
    out(JSON.stringify(answer.data ?? answer));
  } catch (error) {
    out(JSON.stringify({ failed: error.response?.status ?? String(error), problem: error.response?.data }));
  }
}
