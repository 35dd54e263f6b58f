// Reads one base64 text a line; answers one character a line: 1 where JSON.parse(readFileSync(p, 'utf8')) would read it.
"use strict";
const lines = require("fs").readFileSync(0, "latin1").split("\n").slice(0, -1);
const verdicts = lines.map((line) => {
  try {
    JSON.parse(Buffer.from(line, "base64").toString("utf8"));
    return "1";
  } catch (error) {
    if (error instanceof SyntaxError) return "0";
    throw error;
  }
});
process.stdout.write(verdicts.join("\n"));
