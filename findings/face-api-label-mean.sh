#!/bin/sh
# face-api.js 0.22.2: a second, poorer photo of a person makes FaceMatcher reject an identical face.
# `FaceMatcher` compares a probe with the mean distance of a label's descriptors, not with the nearest. A label of two
# descriptors rejects ("unknown") a probe that equals one of them where the other is far away.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund face-api.js@0.22.2
node - 2>/dev/null <<'END'
const assert = require('assert');
const faceapi = require('face-api.js');
const at = (x) => Float32Array.from({ length: 128 }, (_, i) => (i === 0 ? x : 0));
const matcher = (...places) =>
  new faceapi.FaceMatcher([new faceapi.LabeledFaceDescriptors('person', places.map(at))], 0.6);
console.log('face-api.js', require('face-api.js/package.json').version);
const one = matcher(0).findBestMatch(at(0));
const two = matcher(0, 1.5).findBestMatch(at(0));
console.log('enrolled with the probe itself:              ', one.toString());
console.log('enrolled with it and a second, distant photo:', two.toString());
assert.strictEqual(one.label, 'person');
assert.strictEqual(two.label, 'unknown', 'changed: the nearest descriptor counts');
END
