//! The simulator's records as GitHub's JSON.

use serde_json::{Map, Value, json};

use super::git::{Commit, Entry, Mode, Person};
use super::store::{JobState, LOGIN, Pull, Repo, Run, Stored};
use super::written;

/// Addresses of one repo.
pub(super) struct Urls {
    origin: String,
    /// The repo in the API.
    pub(super) api: String,
    /// The repo for people.
    pub(super) html: String,
}

impl Urls {
    pub(super) fn new(origin: &str, owner: &str, name: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            api: format!("{origin}/repos/{owner}/{name}"),
            html: format!("{origin}/{owner}/{name}"),
        }
    }
}

fn node_id(kind: &str, id: impl std::fmt::Display) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("{kind}:{id}"))
}

/// A user, in the short form.
pub(super) fn user(origin: &str, login: &str) -> Value {
    let url = format!("{origin}/users/{login}");
    let mut fields = json!({
        "login": login, "id": 1, "node_id": node_id("User", login), "gravatar_id": "",
        "avatar_url": format!("{origin}/avatars/{login}"), "url": url, "html_url": format!("{origin}/{login}"),
        "gists_url": format!("{url}/gists{{/gist_id}}"), "following_url": format!("{url}/following{{/other_user}}"),
        "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"), "events_url": format!("{url}/events{{/privacy}}"),
        "type": "User", "user_view_type": "public", "site_admin": false,
    });
    for name in ["followers", "subscriptions", "organizations", "repos", "received_events"] {
        let path = if name == "organizations" { "orgs" } else { name };
        fields[format!("{name}_url")] = format!("{url}/{path}").into();
    }
    fields
}

/// The token's own user, in the long form.
pub(super) fn own_user(origin: &str, repos: usize, since: &str) -> Value {
    let mut fields = user(origin, LOGIN);
    let more = json!({
        "name": "Octo", "company": null, "blog": "", "location": null, "email": null, "hireable": null, "bio": null,
        "public_repos": repos, "public_gists": 0, "followers": 0, "following": 0, "created_at": since,
        "updated_at": since, "private_gists": 0, "total_private_repos": 0, "owned_private_repos": 0, "disk_usage": 0,
        "collaborators": 0, "two_factor_authentication": true,
    });
    merge(&mut fields, more);
    fields
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// A repo, in the long form that suits all places.
pub(super) fn repo(repo: &Repo, urls: &Urls) -> Value {
    const TEMPLATES: &[(&str, &str)] = &[
        ("archive", "{archive_format}{/ref}"),
        ("assignees", "assignees{/user}"),
        ("blobs", "git/blobs{/sha}"),
        ("branches", "branches{/branch}"),
        ("collaborators", "collaborators{/collaborator}"),
        ("comments", "comments{/number}"),
        ("commits", "commits{/sha}"),
        ("compare", "compare/{base}...{head}"),
        ("contents", "contents/{+path}"),
        ("contributors", "contributors"),
        ("deployments", "deployments"),
        ("downloads", "downloads"),
        ("events", "events"),
        ("forks", "forks"),
        ("git_commits", "git/commits{/sha}"),
        ("git_refs", "git/refs{/sha}"),
        ("git_tags", "git/tags{/sha}"),
        ("hooks", "hooks"),
        ("issue_comment", "issues/comments{/number}"),
        ("issue_events", "issues/events{/number}"),
        ("issues", "issues{/number}"),
        ("keys", "keys{/key_id}"),
        ("labels", "labels{/name}"),
        ("languages", "languages"),
        ("merges", "merges"),
        ("milestones", "milestones{/number}"),
        ("notifications", "notifications{?since,all,participating}"),
        ("pulls", "pulls{/number}"),
        ("releases", "releases{/id}"),
        ("stargazers", "stargazers"),
        ("statuses", "statuses/{sha}"),
        ("subscribers", "subscribers"),
        ("subscription", "subscription"),
        ("tags", "tags"),
        ("teams", "teams"),
        ("trees", "git/trees{/sha}"),
    ];
    let mut fields = json!({
        "id": repo.id, "node_id": node_id("Repository", repo.id), "name": repo.name, "full_name": repo.full_name(),
        "owner": user(&urls.origin, &repo.owner), "private": false, "visibility": "public", "html_url": urls.html,
        "description": null, "fork": false, "url": urls.api, "clone_url": format!("{}.git", urls.html),
        "git_url": format!("git://github.invalid/{}.git", repo.full_name()),
        "ssh_url": format!("git@github.invalid:{}.git", repo.full_name()), "svn_url": urls.html, "mirror_url": null,
        "homepage": null, "language": null, "default_branch": repo.default_branch, "archived": repo.archived,
        "disabled": false, "license": null, "topics": [], "is_template": false, "web_commit_signoff_required": false,
        "has_issues": true, "has_projects": true, "has_wiki": true, "has_pages": false, "has_discussions": false,
        "allow_forking": true, "created_at": repo.created_at, "updated_at": repo.pushed_at, "pushed_at": repo.pushed_at,
        "permissions": { "admin": true, "maintain": true, "push": true, "triage": true, "pull": true },
        "allow_squash_merge": true, "allow_merge_commit": true, "allow_rebase_merge": true, "allow_auto_merge": false,
        "delete_branch_on_merge": false,
    });
    for count in [
        "forks",
        "forks_count",
        "open_issues",
        "open_issues_count",
        "size",
        "stargazers_count",
        "watchers",
        "watchers_count",
        "network_count",
        "subscribers_count",
    ] {
        fields[count] = 0.into();
    }
    for (name, path) in TEMPLATES {
        fields[format!("{name}_url")] = format!("{}/{path}", urls.api).into();
    }
    fields
}

fn author(person: &Person) -> Value {
    let at = jiff::Timestamp::from_second(person.at_s).unwrap_or_default();
    json!({ "name": person.name, "email": person.email, "date": written(at) })
}

fn unverified() -> Value {
    json!({ "verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null })
}

fn parents(commit: &Commit, urls: &Urls, kind: &str) -> Vec<Value> {
    let link = |sha: &String| json!({ "sha": sha, "url": format!("{}/{kind}/{sha}", urls.api), "html_url": format!("{}/commit/{sha}", urls.html) });
    commit.parents.iter().map(link).collect()
}

/// A commit as the git endpoints show it.
pub(super) fn git_commit(sha: &str, commit: &Commit, urls: &Urls) -> Value {
    json!({
        "sha": sha, "node_id": node_id("Commit", sha), "url": format!("{}/git/commits/{sha}", urls.api),
        "html_url": format!("{}/commit/{sha}", urls.html), "author": author(&commit.author),
        "committer": author(&commit.committer), "message": commit.message.trim_end_matches('\n'),
        "tree": { "sha": commit.tree, "url": format!("{}/git/trees/{}", urls.api, commit.tree) },
        "parents": parents(commit, urls, "git/commits"), "verification": unverified(),
    })
}

/// A commit as the repo's endpoints show it.
pub(super) fn commit(sha: &str, commit: &Commit, urls: &Urls) -> Value {
    let url = format!("{}/commits/{sha}", urls.api);
    json!({
        "sha": sha, "node_id": node_id("Commit", sha), "url": url, "html_url": format!("{}/commit/{sha}", urls.html),
        "comments_url": format!("{url}/comments"), "author": user(&urls.origin, LOGIN), "committer": user(&urls.origin, LOGIN),
        "commit": {
            "author": author(&commit.author), "committer": author(&commit.committer),
            "message": commit.message.trim_end_matches('\n'), "comment_count": 0,
            "tree": { "sha": commit.tree, "url": format!("{}/git/trees/{}", urls.api, commit.tree) },
            "url": format!("{}/git/commits/{sha}", urls.api), "verification": unverified(),
        },
        "parents": parents(commit, urls, "commits"),
    })
}

/// A reference.
pub(super) fn reference(name: &str, sha: &str, urls: &Urls) -> Value {
    json!({
        "ref": name, "node_id": node_id("Ref", name), "url": format!("{}/git/{name}", urls.api),
        "object": { "type": "commit", "sha": sha, "url": format!("{}/git/commits/{sha}", urls.api) },
    })
}

/// An entry of a tree, as the git endpoints show it.
pub(super) fn tree_entry(entry: &Entry, size: Option<usize>, urls: &Urls) -> Value {
    let mut fields = json!({ "path": entry.path, "mode": entry.mode.as_str(), "type": entry.mode.kind(), "sha": entry.sha });
    if let Some(size) = size {
        fields["size"] = size.into();
    }
    if entry.mode != Mode::Submodule {
        fields["url"] = format!("{}/git/{}s/{}", urls.api, entry.mode.kind(), entry.sha).into();
    }
    fields
}

/// A file or a folder, as the contents endpoint shows it, without its content.
pub(super) fn content(entry: &Entry, size: usize, at: &str, urls: &Urls) -> Value {
    let url = format!("{}/contents/{}?ref={at}", urls.api, path_in_url(&entry.path));
    let (kind, is_file) = match entry.mode {
        Mode::File | Mode::Executable => ("file", true),
        Mode::Symlink => ("symlink", true),
        Mode::Directory => ("dir", false),
        Mode::Submodule => ("submodule", false),
    };
    let git_url = format!("{}/git/{}s/{}", urls.api, entry.mode.kind(), entry.sha);
    let html_url = format!("{}/{}/{at}/{}", urls.html, entry.mode.kind(), path_in_url(&entry.path));
    let download = is_file.then(|| format!("{}/raw/{at}/{}", urls.html, path_in_url(&entry.path)));
    json!({
        "name": entry.path.rsplit('/').next(), "path": entry.path, "sha": entry.sha, "size": size, "url": url,
        "html_url": html_url, "git_url": git_url, "download_url": download, "type": kind,
        "_links": { "self": url, "git": git_url, "html": html_url },
    })
}

fn path_in_url(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}

/// A pull request.
pub(super) fn pull(pull: &Pull, within: &Repo, urls: &Urls) -> Value {
    let url = format!("{}/pulls/{}", urls.api, pull.number);
    let issue = format!("{}/issues/{}", urls.api, pull.number);
    let html = format!("{}/pull/{}", urls.html, pull.number);
    let open = |branch: &str, last: &str| {
        let now = pull.closed_at.is_none().then(|| within.branch(branch)).flatten();
        now.unwrap_or(last).to_owned()
    };
    let side = |branch: &str, sha: String| {
        json!({
            "label": format!("{}:{branch}", within.owner), "ref": branch, "sha": sha,
            "user": user(&urls.origin, &within.owner), "repo": repo(within, urls),
        })
    };
    let head = open(&pull.head, &pull.last_head);
    let statuses = format!("{}/statuses/{head}", urls.api);
    let owner = user(&urls.origin, LOGIN);
    let mergeable = super::pulls::mergeable(pull, within);
    let mut fields = json!({
        "id": pull.id, "node_id": node_id("PullRequest", pull.id), "number": pull.number, "url": url, "html_url": html,
        "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"), "issue_url": issue,
        "commits_url": format!("{url}/commits"), "comments_url": format!("{issue}/comments"),
        "review_comments_url": format!("{url}/comments"), "review_comment_url": format!("{}/pulls/comments{{/number}}", urls.api),
        "statuses_url": statuses, "state": pull.state(), "locked": false, "title": pull.title, "body": pull.body,
        "user": owner, "labels": [], "milestone": null, "active_lock_reason": null, "assignees": [],
        "requested_reviewers": [], "requested_teams": [], "draft": false, "author_association": "OWNER",
        "auto_merge": null, "created_at": pull.created_at, "updated_at": pull.updated_at, "closed_at": pull.closed_at,
        "merged_at": pull.merged_sha.as_ref().and(pull.closed_at.as_ref()), "merged": pull.merged_sha.is_some(),
        "merge_commit_sha": pull.merged_sha, "mergeable": mergeable,
    });
    let more = json!({
        "rebaseable": mergeable, "mergeable_state": match mergeable {
            Some(true) => "clean",
            Some(false) => "dirty",
            None => "unknown",
        },
        "merged_by": pull.merged_sha.is_some().then(|| owner.clone()), "comments": 0, "review_comments": 0,
        "maintainer_can_modify": false, "commits": 1, "additions": 0, "deletions": 0, "changed_files": 0,
        "head": side(&pull.head, head.clone()), "base": side(&pull.base, open(&pull.base, &pull.last_base)),
        "_links": {
            "self": { "href": url }, "html": { "href": html }, "issue": { "href": issue },
            "comments": { "href": format!("{issue}/comments") }, "review_comments": { "href": format!("{url}/comments") },
            "review_comment": { "href": format!("{}/pulls/comments{{/number}}", urls.api) },
            "commits": { "href": format!("{url}/commits") }, "statuses": { "href": statuses },
        },
    });
    merge(&mut fields, more);
    fields
}

/// A workflow file.
pub(super) fn workflow(id: u64, path: &str, name: &str, within: &Repo, urls: &Urls) -> Value {
    let file = path.rsplit('/').next().unwrap_or(path);
    json!({
        "id": id, "node_id": node_id("Workflow", id), "name": name, "path": path, "state": "active",
        "created_at": within.created_at, "updated_at": within.pushed_at, "url": format!("{}/actions/workflows/{id}", urls.api),
        "html_url": format!("{}/blob/{}/{path}", urls.html, within.default_branch),
        "badge_url": format!("{}/actions/workflows/{file}/badge.svg", urls.html),
    })
}

/// A run of a workflow.
pub(super) fn run(run: &Run, within: &Repo, urls: &Urls) -> Value {
    let url = format!("{}/actions/runs/{}", urls.api, run.id);
    let workflow_id = within.workflows.get(&run.path).copied().unwrap_or_default();
    let head = within.git.commit(&run.sha).map(|commit| {
        json!({
            "id": run.sha, "tree_id": commit.tree, "message": commit.message.trim_end_matches('\n'),
            "timestamp": author(&commit.author)["date"], "author": { "name": commit.author.name, "email": commit.author.email },
            "committer": { "name": commit.committer.name, "email": commit.committer.email },
        })
    });
    let mut fields = json!({
        "id": run.id, "name": run.workflow_name, "node_id": node_id("WorkflowRun", run.id), "head_branch": run.branch,
        "head_sha": run.sha, "path": run.path, "display_title": run.title, "run_number": run.number,
        "event": run.event, "status": run.status(), "conclusion": run.conclusion, "workflow_id": workflow_id,
        "check_suite_id": run.id, "check_suite_node_id": node_id("CheckSuite", run.id), "url": url,
        "html_url": format!("{}/actions/runs/{}", urls.html, run.id), "pull_requests": [], "created_at": run.created_at,
        "updated_at": run.updated_at, "actor": user(&urls.origin, LOGIN), "triggering_actor": user(&urls.origin, LOGIN),
        "run_attempt": run.attempt, "referenced_workflows": [], "run_started_at": run.created_at,
        "previous_attempt_url": null, "workflow_url": format!("{}/actions/workflows/{workflow_id}", urls.api),
        "check_suite_url": format!("{}/check-suites/{}", urls.api, run.id), "head_commit": head,
        "repository": repo(within, urls), "head_repository": repo(within, urls),
    });
    for (name, path) in [
        ("jobs", "jobs"),
        ("logs", "logs"),
        ("artifacts", "artifacts"),
        ("cancel", "cancel"),
        ("rerun", "rerun"),
    ] {
        fields[format!("{name}_url")] = format!("{url}/{path}").into();
    }
    fields
}

/// A job of a run.
pub(super) fn job(job: &JobState, run: &Run, urls: &Urls) -> Value {
    let steps = job.steps.iter().enumerate().map(|(index, step)| {
        let status = match (&step.completed_at, &step.started_at) {
            (Some(_), _) => "completed",
            (None, Some(_)) => "in_progress",
            (None, None) => "queued",
        };
        json!({
            "name": step.name, "status": status, "conclusion": step.conclusion, "number": index + 1,
            "started_at": step.started_at, "completed_at": step.completed_at,
        })
    });
    let status = match (&job.completed_at, &job.started_at) {
        (Some(_), _) => "completed",
        (None, Some(_)) => "in_progress",
        (None, None) => "queued",
    };
    let runner = job.started_at.as_ref().map(|_| 1);
    json!({
        "id": job.id, "run_id": run.id, "workflow_name": run.workflow_name, "head_branch": run.branch,
        "run_url": format!("{}/actions/runs/{}", urls.api, run.id), "run_attempt": run.attempt,
        "node_id": node_id("CheckRun", job.id), "head_sha": run.sha, "url": format!("{}/actions/jobs/{}", urls.api, job.id),
        "html_url": format!("{}/actions/runs/{}/job/{}", urls.html, run.id, job.id), "status": status,
        "conclusion": job.conclusion, "created_at": job.created_at, "started_at": job.started_at.as_ref().unwrap_or(&job.created_at),
        "completed_at": job.completed_at, "name": job.name, "steps": steps.collect::<Vec<_>>(),
        "check_run_url": format!("{}/check-runs/{}", urls.api, job.id), "labels": job.labels, "runner_id": runner,
        "runner_name": runner.map(|_| "GitHub Actions 1"), "runner_group_id": runner, "runner_group_name": runner.map(|_| "GitHub Actions"),
    })
}

/// A secret: never its value.
pub(super) fn secret(name: &str, secret: &Stored) -> Value {
    json!({ "name": name, "created_at": secret.created_at, "updated_at": secret.updated_at })
}

/// A variable.
pub(super) fn variable(name: &str, variable: &Stored) -> Value {
    json!({ "name": name, "value": variable.value, "created_at": variable.created_at, "updated_at": variable.updated_at })
}

/// An annotation of a job.
pub(super) fn annotation(message: &str, urls: &Urls) -> Value {
    let mut fields = Map::new();
    for (key, value) in [("start_line", 1), ("end_line", 1)] {
        fields.insert(key.to_owned(), value.into());
    }
    for key in ["start_column", "end_column", "raw_details"] {
        fields.insert(key.to_owned(), Value::Null);
    }
    fields.insert("path".to_owned(), ".github".into());
    fields.insert("blob_href".to_owned(), format!("{}/blob/main/.github", urls.html).into());
    fields.insert("annotation_level".to_owned(), "failure".into());
    fields.insert("title".to_owned(), "".into());
    fields.insert("message".to_owned(), message.into());
    Value::Object(fields)
}
