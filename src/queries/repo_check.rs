//! What stands between a repo and its first deploy, before a VM is bought: one row per thing.

use super::doctor::{Row, Verdict};
use crate::domain::names::RepoName;
use crate::github::{ActionsPolicy, AllowedActions, GitHub, GitHubError, Guards, RepoFacts};
use crate::operations::{Context, OpError, repo};

/// The actions that the workflow uses.
const ACTIONS: [&str; 6] = [
    "actions/checkout",
    "docker/login-action",
    "docker/setup-buildx-action",
    "docker/build-push-action",
    "ruby/setup-ruby",
    "buildpacks/github-actions/setup-pack",
];
/// A page that makes a token with all that is needed chosen already.
const TOKEN_PAGE: &str = "https://github.com/settings/personal-access-tokens/new?name=VMKit&contents=write&pull_requests=write&workflows=write&actions=write&secrets=write&variables=write";
/// The same for a classic token.
const CLASSIC_PAGE: &str =
    "https://github.com/settings/tokens/new?description=VMKit&scopes=repo,workflow";
/// A branch that the set-up makes.
const BRANCH: &str = "vmkit/setup";

fn row(what: &str, verdict: Verdict, found: impl Into<String>, fix: Option<String>) -> Row {
    Row { what: what.to_owned(), verdict, found: found.into(), fix }
}

/// Looks at the repo, the token's permissions, Actions, rules, and what a scan finds.
///
/// # Errors
/// GitHub does not answer, or the repo does not exist.
pub async fn check(context: &Context, name: &RepoName, root: &str) -> Result<Vec<Row>, OpError> {
    let github = context.accounts.github().await?;
    let facts = github.repo(name).await?;
    let mut rows = vec![repo_row(&facts)];
    rows.push(token_row(&github, &facts).await?);
    rows.extend(actions_rows(github.actions_policy(&facts.full_name).await?));
    let guards = github.guards(&facts.full_name, &facts.default_branch).await?;
    rows.push(branch_row(&guards));
    if github.guards(&facts.full_name, BRANCH).await?.forbids_creation() {
        let fix =
            format!("let the token's owner bypass the ruleset, or leave `{BRANCH}` out of it");
        let found = format!("a ruleset forbids to make the branch `{BRANCH}`");
        rows.push(row("pull request", Verdict::Bad, found, Some(fix)));
    }
    let packages = "GitHub tells nobody who may write packages before a run tries";
    let fix = "run the workflow's action `build` once, from the Actions tab: it builds and pushes the image, and needs no VM";
    rows.push(row("packages", Verdict::Note, packages, Some(fix.to_owned())));
    rows.extend(scan_rows(&github, name, root).await?);
    Ok(rows)
}

fn repo_row(facts: &RepoFacts) -> Row {
    let name = &facts.full_name;
    if facts.archived {
        let fix = Some("unarchive it in its settings".to_owned());
        return row("repo", Verdict::Bad, format!("{name} is archived, so read-only"), fix);
    }
    let kind = if facts.private { "private" } else { "public" };
    row(
        "repo",
        Verdict::Good,
        format!("{name}, {kind}, default branch {}", facts.default_branch),
        None,
    )
}

/// All that the token lacks at once.
async fn token_row(github: &GitHub, facts: &RepoFacts) -> Result<Row, OpError> {
    let what = "token";
    let scopes = github.user().await?.scopes;
    let mut lacking: Vec<String> =
        github.lacking(&facts.full_name).await?.into_iter().map(str::to_owned).collect();
    if !facts.permissions.push {
        lacking.push("contents=write".to_owned());
    }
    let page = match &scopes {
        Some(scopes) => {
            let has = |scope: &str| scopes.split(',').any(|one| one.trim() == scope);
            lacking
                .extend(["repo", "workflow"].iter().filter(|s| !has(s)).map(|s| (*s).to_owned()));
            CLASSIC_PAGE
        }
        None => TOKEN_PAGE,
    };
    if lacking.is_empty() {
        let found =
            "it may read all that is needed and push; what else it may write shows when it does";
        return Ok(row(what, Verdict::Good, found, None));
    }
    let fix = format!("make one for this repo at {page}, and store it with `vmkit connect github`");
    Ok(row(what, Verdict::Bad, format!("it lacks {}", lacking.join(", ")), Some(fix)))
}

fn actions_rows(policy: Option<ActionsPolicy>) -> Vec<Row> {
    let what = "Actions";
    let Some(policy) = policy else {
        let found = "the token may not read the Actions settings, which takes administration=read";
        let fix = "look at Settings > Actions > General: Actions enabled, and these allowed: ";
        let fix = Some(format!("{fix}{}", ACTIONS.join(", ")));
        return vec![row(what, Verdict::Note, found, fix)];
    };
    if !policy.enabled {
        let fix = "turn them on in Settings > Actions > General".to_owned();
        return vec![row(what, Verdict::Bad, "they are turned off for the repo", Some(fix))];
    }
    let refused: Vec<&str> =
        ACTIONS.into_iter().filter(|action| !policy.allowed.allows(action)).collect();
    if refused.is_empty() {
        return vec![row(
            what,
            Verdict::Good,
            "enabled, and the actions that are used are allowed",
            None,
        )];
    }
    let fix = "allow them in Settings > Actions > General > Allow select actions: docker/*, ruby/setup-ruby@*, buildpacks/github-actions/*, and those by GitHub".to_owned();
    // Whom GitHub has verified is not told; these owners may be among them.
    let perhaps = matches!(&policy.allowed, AllowedActions::Selected { verified: true, .. })
        && refused.iter().all(|action| !action.starts_with("actions/"));
    let verdict = if perhaps { Verdict::Note } else { Verdict::Bad };
    let found = match perhaps {
        true => format!(
            "only if GitHub has verified their makers are these allowed: {}",
            refused.join(", ")
        ),
        false => format!("these are not allowed: {}", refused.join(", ")),
    };
    vec![row(what, verdict, found, Some(fix))]
}

fn branch_row(guards: &Guards) -> Row {
    let what = "default branch";
    let Some(why) = guards.told() else {
        let found = "nothing guards it: a pull request, or `changes: direct`, as you like";
        return row(what, Verdict::Good, found, None);
    };
    let approvals = match guards.approvals {
        0 => String::new(),
        1 => ", and one approval is needed".to_owned(),
        many => format!(", and {many} approvals are needed"),
    };
    let found =
        format!("{why}{approvals}: changes come by pull request, and `direct` is not possible");
    row(what, Verdict::Note, found, None)
}

async fn scan_rows(github: &GitHub, name: &RepoName, root: &str) -> Result<Vec<Row>, OpError> {
    let scanned = match repo::scan(github, name, None, root).await {
        Ok(scanned) => scanned,
        Err(OpError::GitHub(GitHubError::EmptyRepo) | OpError::UnknownRef { .. }) => {
            let fix = Some("push the app's first commit".to_owned());
            return Ok(vec![row("code", Verdict::Bad, "the repo has no commit yet", fix)]);
        }
        Err(error) => return Err(error),
    };
    let mut rows: Vec<Row> = scanned
        .scan
        .blocking()
        .map(|check| row("code", Verdict::Bad, check.text.clone(), Some(check.fix.clone())))
        .collect();
    if rows.is_empty() {
        let built = scanned.built().unwrap_or_default();
        rows.push(row(
            "code",
            Verdict::Good,
            format!("{}, built by {built}", scanned.scan.stack),
            None,
        ));
    }
    Ok(rows)
}
