//! What earlier versions left behind must open, be read and go on: `tests/compat/NNNN/state.sql`
//! is a state as a version wrote it, `journal.json` the steps of its operations.

#[path = "../../../tests/support/promises.rs"]
mod promises;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::accounts::Accounts;
use crate::domain::clock::Clock;
use crate::domain::deploy::DeployState;
use crate::domain::secret::Secret;
use crate::operations::{Context, Driver, testing};
use crate::vault::{Purpose, Vault};

/// Kinds with a list of steps for each action.
const SEVERAL: [&str; 3] = ["maintain_vm", "manage_service", "control_app"];
const ACCEPT: &str = "cargo test -p vmkit --lib compat";

/// Kind, then version, then the names of the steps.
type Steps = BTreeMap<String, BTreeMap<u32, Vec<String>>>;

fn states() -> Vec<(u32, String)> {
    promises::all("state.sql")
}

/// A file that holds a dump, as the version that was dumped left it.
fn restore(place: &Place, dump: &str) -> Connection {
    let raw = Connection::open(&place.path).expect("a file");
    raw.execute_batch(dump).expect("the dump can be loaded");
    let broken = raw.prepare("pragma foreign_key_check").expect("asked").exists([]).expect("told");
    assert!(!broken, "the dump's rows belong together");
    raw
}

fn texts(raw: &Connection, select: &str) -> Vec<String> {
    let mut select = raw.prepare(select).expect("a select");
    let rows = select.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|text| text.expect("a text")).collect()
}

fn schema(raw: &Connection) -> String {
    let select = "select sql from sqlite_master where sql is not null order by type desc, name";
    texts(raw, select).join(";\n")
}

/// Everything in a file, as SQL.
fn dump(raw: &Connection) -> String {
    let mut sql =
        vec![format!("pragma foreign_keys = off;\npragma user_version = {};", MIGRATIONS.len())];
    let of = |kind: &str, what: &str| {
        let select = "select {what} from sqlite_master where type = '{kind}' and sql is not null order by rowid";
        texts(raw, &select.replace("{what}", what).replace("{kind}", kind))
    };
    for (table, create) in of("table", "name").iter().zip(of("table", "sql")) {
        sql.push(format!("{create};"));
        let columns = texts(raw, &format!("select name from pragma_table_info('{table}')"));
        let quoted: Vec<String> = columns.iter().map(|name| format!("quote([{name}])")).collect();
        let rows = format!("select {} from {table} order by rowid", quoted.join(" || ', ' || "));
        let names = columns.join(", ");
        let insert = |row: &String| format!("insert into {table} ({names}) values ({row});");
        sql.extend(texts(raw, &rows).iter().map(insert));
    }
    sql.extend(of("index", "sql").iter().map(|create| format!("{create};")));
    sql.join("\n") + "\n"
}

#[tokio::test]
async fn every_state_that_was_shipped_becomes_one_of_today() {
    let fresh = place();
    drop(open(&fresh).await);
    let today = schema(&Connection::open(&fresh.path).expect("raw"));
    let (mut newest, mut migrated) = (String::new(), String::new());
    for (number, sql) in states() {
        let place = place();
        newest = schema(&restore(&place, &sql));
        drop(open(&place).await);
        let raw = Connection::open(&place.path).expect("raw");
        migrated = dump(&raw);
        assert_eq!(
            schema(&raw),
            today,
            "{number:04} does not become today's schema: a shipped migration was edited"
        );
    }
    assert!(!migrated.is_empty(), "tests/compat/0001/state.sql is what 0.1 left behind");
    if newest != today {
        let difference = promises::difference(&newest, &today);
        promises::promise("state.sql", &migrated, &difference, ACCEPT);
    }
}

#[tokio::test]
async fn the_dump_of_a_state_is_that_state() {
    for (_, sql) in states() {
        let (one, two) = (place(), place());
        let first = dump(&restore(&one, &sql));
        assert_eq!(dump(&restore(&two, &first)), first);
        let lines = |text: &str| text.lines().filter(|line| line.starts_with("insert")).count();
        assert_eq!(lines(&first), lines(&sql));
    }
}

fn id<T: std::str::FromStr>(prefix: &str, number: u32) -> T
where
    T::Err: std::fmt::Debug,
{
    format!("{prefix}_01k0000000{number:016}").parse().expect("an id")
}

#[tokio::test]
async fn apps_vms_and_environments_that_were_left_are_read() {
    for (_, sql) in states() {
        let place = place();
        drop(restore(&place, &sql));
        let store = open(&place).await;
        let installation = store.installation(fresh(), NOW).await.expect("read");
        assert_eq!((installation.id, installation.mode), (id("ins", 1), Mode::Gateway));
        assert_eq!(installation.url.as_deref(), Some("https://vmkit.example.com"));
        let apps = store.apps().await.expect("read");
        assert_eq!((apps.len(), apps[0].changes), (1, Changes::Pr));
        assert_eq!(apps[0].written.len(), 1);
        let same = store.app_of_repo(1001, ".".to_owned()).await.expect("read").expect("an app");
        assert_eq!(same.app, apps[0].app);
        assert_eq!(
            store.app(apps[0].app.slug.clone()).await.expect("read").expect("it").app,
            same.app
        );

        let environments = store.environments().await.expect("read");
        let names: Vec<String> = environments.iter().map(|e| e.path.to_string()).collect();
        assert_eq!(names, ["shop/old", "shop/production", "shop/staging"]);
        let live = &environments[1];
        assert_eq!(live.settings.domain.as_ref().expect("a domain").as_str(), "shop.example.com");
        assert_eq!((live.settings.protected, live.env_revision), (true, 2));
        assert_eq!(store.environment(live.path.clone()).await.expect("read").as_ref(), Some(live));
        assert_eq!(store.environment_by_id(live.id).await.expect("read").as_ref(), Some(live));
        let at = async |revision| store.env_at(live.id, revision).await.expect("read");
        assert_eq!((at(1).await.len(), at(2).await.len()), (3, 2), "OLD_FLAG was unset");
        assert_eq!(store.secrets_ever(live.id).await.expect("read").len(), 1);

        assert_eq!(store.vms().await.expect("read").len(), 2, "one is gone");
        let vm = store.vm(id("vm", 1)).await.expect("read").expect("a VM");
        assert_eq!(
            (vm.vm.provider_id.as_deref(), vm.monthly.to_string()),
            (Some("42"), "EUR 7.99".into())
        );
        assert_eq!(store.agent_key(vm.vm.id).await.expect("read"), Some([1; 32]));
        let key = store.deploy_key(live.id, vm.vm.id).await.expect("read").expect("a key");
        assert_eq!(key.secret, id("sec", 4));
        let used = store.enrol(id("vm", 2), [3; 32], [9; 32], NOW).await.expect("asked");
        assert_eq!(used, Enrolment::Accepted, "a token that was given out still enrols");
    }
}

#[tokio::test]
async fn operations_plans_deploys_and_keys_that_were_left_are_read() {
    for (_, sql) in states() {
        let place = place();
        drop(restore(&place, &sql));
        let store = open(&place).await;
        let open: Vec<OperationId> =
            store.open_operations().await.expect("read").iter().map(|row| row.id).collect();
        assert_eq!(open, [id("op", 3), id("op", 4)]);
        let recent = store.recent_operations(None, 50).await.expect("read");
        assert!(recent.len() >= 5, "later states hold kinds that came later");
        assert_eq!(recent[0].failure.as_ref().expect("a failure").code, "cloud_refused");
        assert!(recent[0].undoing && recent[0].cancel_requested && recent[0].ended_at.is_some());
        let steps = store.steps(id("op", 3)).await.expect("read");
        assert_eq!((steps.len(), steps[3].state, steps[3].attempts), (4, StepState::Started, 2));
        assert_eq!(steps[1].output, Some(json!(["11"])));

        let deploys = store.deploys(id("env", 1), 9).await.expect("read");
        let states: Vec<DeployState> = deploys.iter().map(|deploy| deploy.state).collect();
        assert_eq!(states, [DeployState::Running, DeployState::Live]);
        let found = store.deploy(deploys[0].id).await.expect("read");
        assert_eq!(found.as_ref(), Some(&deploys[0]));
        let live = store.releases(id("env", 1), 9).await.expect("read");
        assert_eq!((live.len(), live[0].id), (1, deploys[1].id));

        let plan = store.plan(id("plan", 1)).await.expect("read").expect("a plan");
        assert_eq!(plan.used_by, Some(id("op", 3)));
        assert_eq!(store.plans_waiting(NOW).await.expect("read").len(), 1);
        let keys = store.keys().await.expect("read");
        assert_eq!((keys.len(), keys[0].role, keys[0].hash), (2, Role::Deploy, [4; 32]));
        assert_eq!(keys[0].environments.len(), 1);
        assert!(store.key(id("key", 2)).await.expect("read").expect("a key").revoked_at.is_some());

        let held = format!("env:{}", recent[1].environment.expect("its environment"));
        let new = operation(&[(&held, LockMode::Exclusive)]);
        let answer = store.queue_operation(new).await.expect("asked");
        assert_eq!(answer, Queued::Busy(id("op", 4)), "what was locked stays locked");
        let again = Some(("deploy".to_owned(), "once".to_owned(), "00".repeat(32)));
        let new = NewOperation { idempotency: again, ..operation(&[]) };
        let answer = store.queue_operation(new).await.expect("asked");
        assert_eq!(answer, Queued::Repeated(id("op", 2)), "a key that was used stays used");
    }
}

/// Sealed by a vault of this test: a dump holds no sealed value.
fn seal_all(raw: &Connection, vault: &Vault) {
    let all = [
        Purpose::CloudToken,
        Purpose::GitHubToken,
        Purpose::DeployKey,
        Purpose::GatewayIdentity,
        Purpose::EnrolmentToken,
    ];
    for row in texts(raw, "select id from secret") {
        let stored =
            texts(raw, &format!("select purpose from secret where id = '{row}'")).remove(0);
        let purpose = all.into_iter().find(|purpose| purpose.as_str() == stored);
        let purpose = purpose.unwrap_or_else(|| panic!("nobody knows the purpose `{stored}`"));
        let sealed = vault.seal(&Secret::new(row.clone()), purpose, &row).expect("sealed");
        raw.execute("update secret set sealed = ?2 where id = ?1", (row, sealed)).expect("kept");
    }
}

#[tokio::test]
async fn sealed_values_are_found_under_their_purposes() {
    for (_, sql) in states() {
        let place = place();
        let (context, _folder) = testing::context().await;
        seal_all(&restore(&place, &sql), &context.vault);
        let store = open(&place).await;
        let accounts = store.accounts().await.expect("read");
        let purposes = [Purpose::GitHubToken, Purpose::CloudToken];
        assert_eq!(accounts.len(), purposes.len());
        for (account, purpose) in accounts.iter().zip(purposes) {
            let row = account.secret.to_string();
            let opened = context.vault.unseal(&account.sealed, purpose, &row).expect("opened");
            assert_eq!(opened.expose(), row);
        }
        let purpose = Purpose::GatewayIdentity;
        let sole = store.sole_secret(purpose.as_str()).await.expect("read").expect("an identity");
        assert!(context.vault.unseal(&sole.1, purpose, &sole.0.to_string()).is_ok());
        let token = store.secret(id("sec", 5)).await.expect("read").expect("a token");
        assert!(
            context
                .vault
                .unseal(
                    &token,
                    Purpose::EnrolmentToken,
                    &id::<crate::domain::ids::SecretId>("sec", 5).to_string()
                )
                .is_ok()
        );
    }
}

/// A context on a state that was left behind.
async fn context_on(place: &Place) -> (Arc<Context>, tempfile::TempDir) {
    let (context, folder) = testing::context().await;
    let store = open(place).await;
    let accounts = Accounts::none(store.clone(), Arc::clone(&context.vault));
    let clock = Clock::hand(NOW.plus_ms(1_000));
    (Arc::new(Context { store, accounts, clock, ..(*context).clone() }), folder)
}

#[tokio::test]
async fn the_driver_knows_each_operation_and_each_step_that_was_left() {
    for (number, sql) in states() {
        let place = place();
        drop(restore(&place, &sql));
        let (context, _folder) = context_on(&place).await;
        for row in context.store.recent_operations(None, 50).await.expect("read") {
            let names = testing::step_names(&row, &context)
                .unwrap_or_else(|why| panic!("{number:04}: {} {}: {why}", row.kind, row.id));
            for step in context.store.steps(row.id).await.expect("read") {
                let known = names.get(step.position as usize).copied();
                assert_eq!(known, Some(step.name.as_str()), "{number:04}: {} {}", row.kind, row.id);
            }
        }
    }
}

/// The steps that today's driver runs for every kind, with the params that were left behind.
async fn steps_today(context: &Context) -> Steps {
    let rows = context.store.recent_operations(None, 50).await.expect("read");
    let mut steps = Steps::new();
    for (kind, version) in testing::kinds() {
        let mut found = rows.iter().filter(|row| testing::parses_as(kind, &row.kind, version));
        let first = found.next();
        let first =
            first.unwrap_or_else(|| panic!("state.sql holds no operation of kind {kind:?}"));
        for row in std::iter::once(first).chain(found) {
            let row = OperationRow { version, ..row.clone() };
            let names = testing::step_names(&row, context).expect("loaded");
            let names = names.into_iter().map(str::to_owned).collect();
            // What does several things has a list for each.
            let kind = match row.params["action"].as_str() {
                Some(action) if SEVERAL.contains(&row.kind.as_str()) => {
                    format!("{} {action}", row.kind)
                }
                _ => row.kind,
            };
            steps.entry(kind).or_default().insert(version, names);
        }
    }
    steps
}

#[tokio::test]
async fn another_list_of_steps_is_another_version() {
    let place = place();
    drop(restore(&place, &states().last().expect("a state").1));
    let (context, _folder) = context_on(&place).await;
    let today = steps_today(&context).await;
    let mut promised = Steps::new();
    for (_, text) in promises::all("journal.json") {
        let older: Steps = serde_json::from_str(&text).expect("the steps of a version");
        for (kind, versions) in older {
            promised.entry(kind).or_default().extend(versions);
        }
    }
    let mut all = promised.clone();
    for (kind, versions) in &today {
        for (version, names) in versions {
            let before = promised.get(kind).and_then(|versions| versions.get(version));
            assert!(
                before.is_none_or(|before| before == names),
                "the steps of `{kind}` version {version} were {before:?} and are {names:?}: raise \
                 its VERSION, and let `Kind` know both"
            );
            all.entry(kind.clone()).or_default().insert(*version, names.clone());
        }
    }
    if all != promised {
        let text = |steps: &Steps| serde_json::to_string_pretty(steps).expect("JSON") + "\n";
        let difference = promises::difference(&text(&promised), &text(&all));
        promises::promise("journal.json", &text(&all), &difference, ACCEPT);
    }
}

/// Runs the driver on a state until nothing is open, and returns how all that was open ended.
async fn ends(place: &Place) -> Vec<OperationRow> {
    let (context, _folder) = context_on(place).await;
    let store = context.store.clone();
    let open = store.open_operations().await.expect("read");
    let stop = CancellationToken::new();
    let driver = Driver::new(context, "driver of this test".to_owned());
    let until_all_ended = async {
        while !store.open_operations().await.expect("read").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(driver.run(stop.clone()), until_all_ended) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("all end in time");
    let mut ended = Vec::new();
    for row in open {
        ended.push(store.operation(row.id).await.expect("read").expect("the row"));
    }
    ended
}

#[tokio::test]
async fn what_the_driver_does_not_know_ends_stuck() {
    let strange = [
        "update operation set kind = 'raise_drawbridge' where id like '%3'",
        "update operation set version = 99 where id like '%3'",
        "update operation set params = '{}' where id like '%3'",
        "update step set name = 'dig_moat' where operation like '%3' and position = 2",
        "update step set position = 99 where operation like '%3' and position = 3",
    ];
    let (_, sql) = states().pop().expect("a state");
    for change in strange {
        let place = place();
        let raw = restore(&place, &sql);
        assert_eq!(raw.execute(change, []).expect("changed"), 1, "{change}");
        raw.execute("update operation set ended_at = 1, state = 'failed' where id like '%4'", [])
            .expect("out of the way");
        drop(raw);
        let row = ends(&place).await.remove(0);
        assert_eq!(row.state, OperationState::Stuck, "{change}: {row:?}");
        let failure = row.failure.expect("a failure");
        assert_eq!(failure.code, "unknown_steps", "{change}");
        assert_eq!(failure.fix, "go on with the version of VMKit that wrote it", "{change}");
    }
}
