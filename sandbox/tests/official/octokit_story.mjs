// Everything that VMKit asks of GitHub with Octokit (npm `octokit`), on its answers and errors.
//
// Usage: node octokit_story.mjs URL TOKEN ADMIN_URL FOLDER_OF_NODE_MODULES

import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [url, token, admin, modules] = process.argv.slice(2);
const require = createRequire(path.join(modules, "index.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Octokit, App, RequestError } = await load("octokit");

const WORKFLOW = `
name: Story
run-name: Story \${{ inputs.nonce }}
on:
  workflow_dispatch:
    inputs:
      nonce: {type: string, required: true}
jobs:
  only:
    name: Only
    runs-on: ubuntu-24.04
    steps:
      - name: Fail
        run: |
          echo "hello $NONCE"
          echo "::error::it was asked to fail"
          exit 3
        env: {NONCE: "\${{ inputs.nonce }}"}
`;

const side = async (method, where, body) => {
  const answer = await fetch(`${admin}/_sandbox/${where}`, {
    method,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${where}: ${answer.status}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : undefined;
};

const refused = async (status, message, call) => {
  const error = await call().then(() => assert.fail(`${status} was expected`), (error) => error);
  assert.ok(error instanceof RequestError, String(error));
  assert.equal(error.status, status, error.message);
  assert.ok(error.response.data.message.includes(message), error.message);
  return error;
};

const until = async (what, look) => {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

const quiet = { enabled: false };
const options = { baseUrl: url, retry: quiet, throttle: quiet };
const api = new Octokit({ ...options, auth: token });
const repo = { owner: "octo", repo: "shop" };
const rest = api.rest;

assert.equal((await rest.users.getAuthenticated()).data.login, "octo");
const home = (await rest.repos.get(repo)).data;
assert.deepEqual([home.full_name, home.default_branch, home.permissions.push], ["octo/shop", "main", true]);
const etag = (await rest.repos.get(repo)).headers.etag;
const same = await rest.repos.get({ ...repo, headers: { "if-none-match": etag } }).catch((error) => error);
assert.equal(same.status, 304);

// Files, a branch, a pull request.
const put = async (file, text, branch) =>
  (await rest.repos.createOrUpdateFileContents({
    ...repo, path: file, branch, message: `Add ${file}`, content: Buffer.from(text).toString("base64"),
  })).data.commit.sha;
const first = await put(".github/workflows/story.yml", WORKFLOW, "main");
await rest.git.createRef({ ...repo, ref: "refs/heads/story", sha: first });
const second = await put("story.txt", "a story\n", "story");
const file = (await rest.repos.getContent({ ...repo, path: "story.txt", ref: "story" })).data;
assert.equal(Buffer.from(file.content, "base64").toString(), "a story\n");
const pull = (await rest.pulls.create({ ...repo, base: "main", head: "story", title: "A story" })).data;
assert.deepEqual([pull.state, pull.merged, pull.head.sha], ["open", false, second]);
const again = await refused(422, "Validation Failed", () => rest.pulls.create({ ...repo, base: "main", head: "story", title: "A story" }));
assert.ok(again.response.data.errors[0].message.startsWith("A pull request already exists"));
const compared = (await rest.repos.compareCommitsWithBasehead({ ...repo, basehead: `${first}...${second}` })).data;
assert.deepEqual([compared.status, compared.ahead_by, compared.files.map((one) => one.filename)], ["ahead", 1, ["story.txt"]]);
assert.equal((await rest.pulls.merge({ ...repo, pull_number: pull.number })).data.merged, true);
await rest.git.deleteRef({ ...repo, ref: "heads/story" });
await refused(404, "Not Found", () => rest.git.getRef({ ...repo, ref: "heads/story" }));

// Secrets, variables.
const key = (await rest.actions.getRepoPublicKey(repo)).data;
assert.equal(Buffer.from(key.key, "base64").length, 32);
await rest.actions.createRepoVariable({ ...repo, name: "A", value: "one" });
await rest.actions.updateRepoVariable({ ...repo, name: "A", value: "two" });
assert.equal((await rest.actions.getRepoVariable({ ...repo, name: "A" })).data.value, "two");
await rest.actions.deleteRepoVariable({ ...repo, name: "A" });

// A webhook of its own, verified as Octokit verifies it.
const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
const publicKey = pair.publicKey.export({ type: "pkcs1", format: "pem" });
const made = await side("PUT", "app", { public_key: publicKey });
const app = new App({
  appId: made.id,
  privateKey: pair.privateKey.export({ type: "pkcs8", format: "pem" }),
  Octokit: Octokit.defaults(options),
  webhooks: { secret: "a-secret-for-tests" },
});
const heard = [];
const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    const body = Buffer.concat(parts).toString();
    const good = await app.webhooks.verify(body, request.headers["x-hub-signature-256"] ?? "");
    heard.push({ event: request.headers["x-github-event"], id: request.headers["x-github-delivery"], good, body: JSON.parse(body) });
    response.writeHead(202).end();
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const hook = (await rest.repos.createWebhook({
  ...repo,
  events: ["workflow_run", "workflow_job", "push"],
  config: { url: `http://127.0.0.1:${server.address().port}/`, content_type: "json", secret: "a-secret-for-tests" },
})).data;
await until("the ping", () => heard.find((one) => one.event === "ping"));

// A run, its job, its log, its annotations.
const dispatched = await api.request("POST /repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches", {
  ...repo, workflow_id: "story.yml", ref: "main", inputs: { nonce: "n1" }, headers: { "x-github-api-version": "2026-03-10" },
});
assert.equal(dispatched.status, 200);
const run_id = dispatched.data.workflow_run_id;
const ended = await until("the run ends", async () => {
  const run = (await rest.actions.getWorkflowRun({ ...repo, run_id })).data;
  return run.status === "completed" && run;
});
assert.deepEqual([ended.conclusion, ended.display_title, ended.event], ["failure", "Story n1", "workflow_dispatch"]);
const jobs = await api.paginate(rest.actions.listJobsForWorkflowRun, { ...repo, run_id });
assert.deepEqual(jobs.map((job) => [job.name, job.conclusion, job.steps[0].name]), [["Only", "failure", "Fail"]]);
const log = (await rest.actions.downloadJobLogsForWorkflowRun({ ...repo, job_id: jobs[0].id })).data;
assert.ok(String(log).includes("hello n1"), String(log));
const notes = (await rest.checks.listAnnotations({ ...repo, check_run_id: jobs[0].id })).data;
assert.ok(notes.some((note) => note.annotation_level === "failure" && note.message === "it was asked to fail"), JSON.stringify(notes));
await refused(409, "Cannot cancel", () => rest.actions.cancelWorkflowRun({ ...repo, run_id }));
const told = await until("all is told", () => {
  const runs = heard.filter((one) => one.event === "workflow_run").map((one) => one.body.action);
  return runs.includes("completed") && heard.some((one) => one.event === "workflow_job" && one.body.action === "completed") && runs;
});
assert.deepEqual(told, ["requested", "in_progress", "completed"]);
assert.ok(heard.every((one) => one.good && one.body.repository.full_name === "octo/shop"));
assert.equal(new Set(heard.map((one) => one.id)).size, heard.length);
await put("pushed.txt", "x", "main");
await until("the push", () => heard.find((one) => one.event === "push" && one.body.ref === "refs/heads/main"));
await side("PUT", "knobs", { webhooks: "forged" });
await put("forged.txt", "x", "main");
await until("the forged one", () => heard.find((one) => !one.good));
await side("PUT", "knobs", {});
await rest.repos.deleteWebhook({ ...repo, hook_id: hook.id });
server.close();

// Refusals and limits.
await refused(401, "Bad credentials", () => new Octokit({ ...options, auth: "another" }).rest.users.getAuthenticated());
await refused(404, "Not Found", () => rest.repos.get({ owner: "octo", repo: "none" }));
await side("PUT", "knobs", { missing_permissions: ["contents=write"] });
const lacking = await refused(403, "not accessible", () => put("a.txt", "a", "main"));
assert.equal(lacking.response.headers["x-accepted-github-permissions"], "contents=write");
await side("PUT", "knobs", { requests_left: 0 });
const limited = await refused(403, "API rate limit exceeded", () => rest.repos.get(repo));
assert.equal(limited.response.headers["x-ratelimit-remaining"], "0");
await side("PUT", "knobs", {});
assert.equal((await rest.rateLimit.get()).data.resources.core.limit, 5000);

// The App, with its own word and an installation's token.
assert.equal((await app.octokit.rest.apps.getAuthenticated()).data.slug, made.slug);
const installation = (await app.octokit.rest.apps.getRepoInstallation(repo)).data;
const installed = await app.getInstallationOctokit(installation.id);
assert.equal((await installed.rest.repos.get(repo)).data.full_name, "octo/shop");
await refused(403, "not accessible by integration", () => installed.rest.users.getAuthenticated());
console.log("ok");
