"""Everything that VMKit asks of GitHub with PyGithub, on its typed values and exceptions.

Usage: python3 pygithub_story.py URL TOKEN ADMIN_URL
"""

import json
import sys
import time
import urllib.request

import github
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from github import Auth, Github, GithubException, GithubIntegration, UnknownObjectException

URL, TOKEN, ADMIN = sys.argv[1:4]
WORKFLOW = """
name: Story
run-name: Story ${{ inputs.nonce }}
on:
  workflow_dispatch:
    inputs:
      nonce: {type: string, required: true}
      fail: {type: boolean, default: false}
jobs:
  only:
    name: Only
    runs-on: ubuntu-24.04
    steps:
      - name: Say hello
        run: echo "hello $NONCE"
        env: {NONCE: "${{ inputs.nonce }}"}
      - name: Maybe fail
        if: inputs.fail
        run: |
          echo "::error::it was asked to fail"
          exit 3
"""


def admin(method, path, body):
    request = urllib.request.Request(
        f"{ADMIN}/_sandbox/{path}", json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()
    return json.loads(text) if text else None


def refused(kind, status, call):
    try:
        call()
    except GithubException as error:
        assert isinstance(error, kind) and error.status == status, (type(error), error)
        return error
    raise AssertionError(f"{kind.__name__} {status} was expected")


def until(what, look):
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)
    return found


def client(auth, **more):
    return Github(base_url=URL, auth=auth, retry=None, seconds_between_requests=0, seconds_between_writes=0, **more)


api = client(Auth.Token(TOKEN))
assert api.get_user().login == "octo"
repo = api.get_repo("octo/shop")
assert (repo.full_name, repo.default_branch, repo.archived) == ("octo/shop", "main", False)
assert repo.permissions.push and repo.owner.login == "octo"
languages = repo.get_languages()
assert any(isinstance(size, int) and size > 0 for size in languages.values()), languages
assert repo.get_branch("main").commit.sha == repo.get_commit("main").sha
paths = {entry.path: entry.type for entry in repo.get_git_tree("main", recursive=True).tree}
assert paths["README.md"] == "blob"
readme = repo.get_contents("README.md")
assert readme.encoding == "base64" and readme.decoded_content
head = repo.get_commit("main")
assert head.commit.author.date is not None and head.commit.message

# Contents, git data and a pull request.
made = repo.create_file(".github/workflows/story.yml", "Add a workflow", WORKFLOW, branch="main")
assert made["commit"].sha == repo.get_branch("main").commit.sha
changed = repo.update_file("README.md", "Change the readme", "changed\n", readme.sha, branch="main")
assert repo.get_contents("README.md").decoded_content == b"changed\n"
refused(GithubException, 409, lambda: repo.update_file("README.md", "Late", "late\n", readme.sha, branch="main"))
base = repo.get_git_commit(changed["commit"].sha)
blob = repo.create_git_blob("#!/bin/sh\n", "utf-8")
element = github.InputGitTreeElement("bin/go.sh", "100755", "blob", sha=blob.sha)
inline = github.InputGitTreeElement("bin/now.sh", "100755", "blob", content="#!/bin/sh\n")
tree = repo.create_git_tree([element, inline], base.tree)
# Content in the entry is the same blob, and may be run as well.
shown = {(one.sha, one.mode) for one in repo.get_git_tree(tree.sha, recursive=True).tree if one.path.startswith("bin/") and one.type == "blob"}
assert shown == {(blob.sha, "100755")}, shown
commit = repo.create_git_commit("Add a script", tree, [base])
ref = repo.create_git_ref("refs/heads/story", commit.sha)
assert refused(GithubException, 422, lambda: repo.create_git_ref("refs/heads/story", commit.sha)).data["message"] == "Reference already exists"
pull = repo.create_pull(base="main", head="story", title="A story", body="With a script")
assert (pull.state, pull.merged, pull.mergeable) == ("open", False, True)
assert [file.filename for file in pull.get_files()] == ["bin/go.sh", "bin/now.sh"]
refused(GithubException, 422, lambda: repo.create_pull(base="main", head="story", title="Again", body=""))
assert [one.number for one in repo.get_pulls(state="open", head="octo:story")] == [pull.number]
compared = repo.compare(base.sha, commit.sha)
assert (compared.ahead_by, compared.behind_by, [file.filename for file in compared.files]) == (1, 0, ["bin/go.sh", "bin/now.sh"])
assert pull.merge().merged
assert repo.get_pull(pull.number).merged
ref.delete()
refused(UnknownObjectException, 404, lambda: repo.get_branch("story"))

# Secrets and variables.
assert repo.create_secret("A_SECRET", "token-for-tests").name == "A_SECRET"
assert [one.name for one in repo.get_secrets()] == ["A_SECRET"]
assert repo.delete_secret("A_SECRET")
variable = repo.create_variable("A_VARIABLE", "one")
assert variable.edit("two")
assert repo.get_variable("A_VARIABLE").value == "two"
repo.delete_variable("A_VARIABLE")
refused(UnknownObjectException, 404, lambda: repo.get_variable("A_VARIABLE"))

# A hook.
hook = repo.create_hook("web", {"url": "https://example.com/hook", "content_type": "json", "secret": "token-for-tests"},
                        ["workflow_run", "push"], active=True)
assert hook.config["secret"] == "********" and hook.events == ["workflow_run", "push"]
assert [one.id for one in repo.get_hooks()] == [hook.id]
hook.edit("web", {"url": "https://example.com/other", "content_type": "json"}, events=["push"])
assert repo.get_hook(hook.id).config["url"] == "https://example.com/other"
hook.delete()
assert list(repo.get_hooks()) == []

# Runs, jobs, steps, logs.
workflow = repo.get_workflow("story.yml")
assert (workflow.name, workflow.state) == ("Story", "active")


def dispatched(nonce, fail):
    assert workflow.create_dispatch("main", {"nonce": nonce, "fail": fail})
    return until(nonce, lambda: next((run for run in workflow.get_runs() if nonce in run.display_title), None))


def ended(run):
    return until("it ends", lambda: (found := repo.get_workflow_run(run.id)).status == "completed" and found)


good = ended(dispatched("first", "false"))
assert (good.conclusion, good.event, good.run_attempt, good.head_sha) == ("success", "workflow_dispatch", 1, repo.get_branch("main").commit.sha)
[job] = list(good.jobs())
assert (job.name, job.conclusion, job.status) == ("Only", "success", "completed")
assert [(step.name, step.conclusion) for step in job.steps] == [("Say hello", "success"), ("Maybe fail", "skipped")]
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(job.logs_url()) as log:
    assert b"hello first" in log.read()
bad = ended(dispatched("second", "true"))
[job] = list(bad.jobs())
assert (bad.conclusion, job.conclusion, job.steps[1].conclusion) == ("failure", "failure", "failure")
admin("PUT", "knobs", {"hold_step": "hello"})
held = dispatched("third", "false")
until("it runs", lambda: repo.get_workflow_run(held.id).status == "in_progress")
assert held.cancel()
admin("PUT", "knobs", {})
assert ended(held).conclusion == "cancelled"
refused(GithubException, 409, lambda: held._requester.requestJsonAndCheck("POST", f"{held.url}/cancel"))
refused(GithubException, 422, lambda: workflow._requester.requestJsonAndCheck(
    "POST", f"{workflow.url}/dispatches", input={"ref": "main", "inputs": {"nonce": "x", "other": "y"}}))
refused(UnknownObjectException, 404, lambda: repo.get_workflow("none.yml"))

# Refusals, limits, pages.
refused(github.BadCredentialsException, 401, lambda: client(Auth.Token("another")).get_user().login)
refused(UnknownObjectException, 404, lambda: api.get_repo("octo/none"))
admin("PUT", "knobs", {"missing_permissions": ["secrets=write"]})
lacking = refused(GithubException, 403, lambda: repo.create_secret("B", "token-for-tests"))
assert lacking.headers["x-accepted-github-permissions"] == "secrets=write"
admin("PUT", "knobs", {"requests_left": 0})
limited = refused(github.RateLimitExceededException, 403, lambda: api.get_repo("octo/shop"))
assert limited.headers["x-ratelimit-remaining"] == "0"
admin("PUT", "knobs", {"secondary_limit_seconds": 7})
limited = refused(github.RateLimitExceededException, 403, lambda: api.get_repo("octo/shop"))
assert limited.headers["retry-after"] == "7" and int(limited.headers["x-ratelimit-remaining"]) > 0
admin("PUT", "knobs", {})
assert api.get_rate_limit().resources.core.limit == 5000
assert {run.display_title for run in repo.get_workflow_runs()} == {"Story first", "Story second", "Story third"}

# An App, with its own word and an installation's token.
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                        serialization.NoEncryption()).decode()
public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
app_id = admin("PUT", "app", {"public_key": public})["id"]
app = GithubIntegration(auth=Auth.AppAuth(app_id, pem), base_url=URL)
assert app.get_app().id == app_id and app.get_app().permissions["contents"] == "write"
[installation] = list(app.get_installations())
assert app.get_repo_installation("octo", "shop").id == installation.id
token = app.get_access_token(installation.id)
assert token.token.startswith("ghs_") and len(token.token) > 400, len(token.token)
as_app = client(Auth.Token(token.token))
assert as_app.get_repo("octo/shop").full_name == "octo/shop"
refused(GithubException, 403, lambda: as_app.get_user().login)
print("ok")
