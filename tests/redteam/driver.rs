//! The untagged part: prepares, has attempts made, and looks at what became of it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use serde_json::Value;

use crate::Options;
use crate::attempt::{Attempt, Maker, Tree};
use crate::catalogue::{self, Entry, Expected};
use crate::field::{Field, Side, User};
use crate::network::{self, spaces};
use crate::report::{self, Control, Line, Outcome};
use crate::stage::{self, AGENT, Executor, LIFTED, Stage, WIDE};
use crate::victim::PROOF;

/// Runs everything that was asked for.
pub fn main(options: &Options) -> Result<ExitCode> {
    let entries: BTreeMap<String, Entry> = catalogue::read()?
        .into_iter()
        .map(|entry| (entry.id.clone(), entry))
        .collect();
    let all = if options.native {
        spaces::alone().context("cannot make a network of the run's own")?;
        network::all()
    } else {
        crate::attempts()
    };
    let picked: Vec<&Attempt> = all
        .iter()
        .filter(|attempt| {
            options.only.is_empty() || options.only.iter().any(|part| attempt.id.contains(part))
        })
        .collect();
    ensure!(!picked.is_empty(), "no attempt has such an id");
    let kernel = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let lines = run(&picked, &entries, &kernel, options.native)?;
    if options.json {
        println!("{}", report::object(&kernel, &lines));
    } else {
        print!("{}", report::table(&kernel, &lines));
    }
    Ok(ExitCode::from(u8::from(lines.iter().any(Line::is_bad))))
}

fn run(
    attempts: &[&Attempt],
    entries: &BTreeMap<String, Entry>,
    kernel: &str,
    native: bool,
) -> Result<Vec<Line>> {
    let begun = Instant::now();
    let step = |what: &str| eprintln!("# {:.1} s: {what}", begun.elapsed().as_secs_f64());
    let mut stage = Stage::set(native)?;
    let without_lsm = stage.without_lsm.clone();
    let (attempts, left): (Vec<&Attempt>, Vec<&Attempt>) = attempts.iter().partition(|attempt| {
        let entry = entries.get(attempt.id);
        without_lsm.is_none() || entry.is_some_and(|entry| !entry.needs_lsm)
    });
    let attempts = &attempts[..];
    let mut fields = prepare(&stage, attempts)?;
    step("prepared");
    stage.start_daemon()?;
    step("the daemon answers");
    for (attempt, field) in &fields {
        if let Some(late) = attempt.late {
            late(field).with_context(|| format!("late preparation of {}", attempt.id))?;
        }
    }
    if attempts.iter().any(|attempt| attempt.late.is_some()) {
        match stage.settle() {
            Ok(()) => step("the daemon has heard of what came late"),
            // Attempts tell which of it the daemon does not know.
            Err(error) => step(&format!("{error:#}")),
        }
    }
    let mut lines = Vec::new();
    for user in User::BOTH {
        let mut team = Team {
            agent: stage.executor(Some(AGENT), user, attempts)?,
            wide: stage.executor(Some(WIDE), user, attempts)?,
            lifted: stage.executor(Some(LIFTED), user, attempts)?,
            plain: stage.executor(None, user, attempts)?,
        };
        step(&format!("{} attempts by {}", attempts.len(), user.name()));
        for attempt in attempts {
            let entry = entries.get(attempt.id).context(attempt.id)?;
            let mut of_user = fields
                .extract_if(.., |(of, field)| of.id == attempt.id && field.user == user)
                .map(|(_, field)| field);
            let (Some(allowed), Some(denied)) = (of_user.next(), of_user.next()) else {
                anyhow::bail!("{}: not prepared", attempt.id);
            };
            drop(of_user);
            let sides = Sides { allowed, denied };
            let line = judge(attempt, entry, kernel, &sides, &mut team)
                .with_context(|| format!("{} by {}", attempt.id, user.name()))?;
            lines.push(line);
        }
    }
    if let Some(why) = &without_lsm {
        // They would get through, as root of this host: they are not made.
        for attempt in left {
            let entry = entries.get(attempt.id).context(attempt.id)?;
            lines.extend(User::BOTH.map(|user| left_out(entry, user, why)));
        }
    }
    step("done");
    Ok(lines)
}

/// Everything that is there before the daemon is.
fn prepare<'a>(stage: &Stage, attempts: &[&'a Attempt]) -> Result<Vec<(&'a Attempt, Field)>> {
    let secret = format!("{:x}", nonce()?);
    let mut fields = Vec::new();
    for attempt in attempts {
        for user in User::BOTH {
            for side in Side::BOTH {
                let mut field = Field::new(stage.places.root(), attempt, user, side);
                field.token = format!(
                    "token-{}-{}-{}-{secret}",
                    attempt.id,
                    user.name(),
                    side.name()
                );
                field
                    .lay()
                    .and_then(|()| (attempt.prepare)(&field))
                    .with_context(|| format!("preparing {}", attempt.id))?;
                fields.push((*attempt, field));
            }
        }
    }
    Ok(fields)
}

fn nonce() -> Result<u64> {
    let mut room = [0; 8];
    crate::sys::call!(SYS_getrandom, &mut room[..], 8, 0)?;
    Ok(u64::from_ne_bytes(room))
}

/// The error by which a refusal shows. Any other, where the control succeeds, means that the
/// attempt did not get to the point.
const REFUSED: i32 = libc::EPERM;

/// An attempt that takes longer is named on standard error.
const LONG: Duration = Duration::from_secs(3);

/// Who makes attempts for one user.
struct Team {
    agent: Executor,
    wide: Executor,
    lifted: Executor,
    plain: Executor,
}

impl Team {
    fn member(&mut self, maker: Maker) -> &mut Executor {
        match maker {
            Maker::Agent => &mut self.agent,
            Maker::Wide => &mut self.wide,
            Maker::Lifted => &mut self.lifted,
            Maker::Untagged => &mut self.plain,
        }
    }
}

/// The two fields of an attempt by one user.
struct Sides {
    allowed: Field,
    denied: Field,
}

/// What was seen of one attempt on one side.
struct Seen {
    effect: bool,
    /// The step that failed.
    error: Option<(String, i32)>,
}

impl Seen {
    /// The technique worked: it had its effect, and every step of it was done.
    fn worked(&self) -> bool {
        self.effect && self.error.is_none()
    }

    fn say(&self) -> String {
        match &self.error {
            Some((step, 0)) => step.clone(),
            Some((step, errno)) => format!("{step}: {}", name(*errno)),
            None if self.effect => "done".to_owned(),
            None => "without an effect".to_owned(),
        }
    }
}

fn name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

fn observe(attempt: &Attempt, field: &Field, executor: &mut Executor) -> Result<Seen> {
    let begun = Instant::now();
    executor.give(attempt, field)?;
    let before = (attempt.look)(field)?;
    let answer = executor.make(attempt, field)?;
    if begun.elapsed() > LONG {
        eprintln!(
            "# {} took {:.1} s",
            attempt.id,
            begun.elapsed().as_secs_f64()
        );
    }
    let after = (attempt.look)(field)?;
    let data = answer["data"].as_str().unwrap_or_default();
    let proof = String::from_utf8_lossy(PROOF);
    // In the tree of writing, everybody may know what is in the files.
    let leaked = attempt.tree == Tree::Read && data.contains(&field.token);
    if std::env::var_os("REDTEAM_TRACE").is_some() {
        eprintln!(
            "{} {}: {answer}\n- {before}+ {after}",
            attempt.id,
            field.side.name()
        );
    }
    Ok(Seen {
        effect: before != after || leaked || data.contains(&*proof),
        error: error(&answer),
    })
}

fn error(answer: &Value) -> Option<(String, i32)> {
    let step = answer["step"].as_str()?;
    let errno = answer["errno"].as_i64().unwrap_or(0);
    Some((step.to_owned(), i32::try_from(errno).unwrap_or(0)))
}

fn judge(
    attempt: &Attempt,
    entry: &Entry,
    kernel: &str,
    sides: &Sides,
    team: &mut Team,
) -> Result<Line> {
    let user = sides.allowed.user;
    let line = |outcome, control, note| Line {
        id: attempt.id.to_owned(),
        technique: entry.technique.clone(),
        user: user.name(),
        outcome,
        control,
        note,
    };
    let control = observe(attempt, &sides.allowed, team.member(attempt.control))?;
    let mut note = String::new();
    let mut verdict = Control::Passed;
    if !control.worked() {
        let plain = observe(attempt, &sides.allowed, &mut team.plain)?;
        if let Some(why) = cannot(attempt, user, &plain) {
            clear(sides);
            return Ok(line(Outcome::NotApplicable, Control::None, why));
        }
        verdict = Control::Failed;
        note = format!("control: {}; untagged: {}; ", control.say(), plain.say());
    }
    let denied = observe(attempt, &sides.denied, team.member(attempt.maker))?;
    if let Some((_, errno)) = denied.error
        && !denied.effect
        && errno != REFUSED
        && Some(errno) != attempt.refusal
    {
        if user == User::Ordinary && attempt.root_only.is_some() {
            let plain = observe(attempt, &sides.denied, &mut team.plain)?;
            if let Some(why) = cannot(attempt, user, &plain) {
                clear(sides);
                return Ok(line(Outcome::NotApplicable, Control::None, why));
            }
        }
        verdict = Control::Failed;
        note.push_str("failed for another reason than a refusal: ");
    }
    clear(sides);
    note.push_str(&denied.say());
    let outcome = match (denied.effect, entry.expected(kernel)) {
        (false, _) => Outcome::Blocked,
        (true, Expected::Blocked) => Outcome::Through,
        (true, Expected::AllowedAsDesigned) => Outcome::AllowedAsDesigned,
    };
    Ok(line(outcome, verdict, note))
}

/// What is said of an attempt that only LSM programs hold, on a host without them.
fn left_out(entry: &Entry, user: User, why: &str) -> Line {
    // What `doctor` says of files instead comes first, and is no matter here.
    let why = why.rsplit("; ").next().unwrap_or(why);
    Line {
        id: entry.id.clone(),
        technique: entry.technique.clone(),
        user: user.name(),
        outcome: Outcome::NotApplicable,
        control: Control::None,
        note: format!("held by LSM programs, which this host does not have ({why})"),
    }
}

/// Why the technique does not exist here: it fails without a tag too, as foreseen.
fn cannot(attempt: &Attempt, user: User, plain: &Seen) -> Option<String> {
    if plain.worked() {
        return None;
    }
    let seen = plain.say();
    if user == User::Ordinary
        && let Some(why) = attempt.root_only
    {
        return Some(format!("{why} (untagged: {seen})"));
    }
    let (_, errno) = plain.error.as_ref()?;
    let (_, why) = attempt.lacks.iter().find(|(known, _)| known == errno)?;
    Some(format!("{why} (untagged: {seen})"))
}

/// Takes away what attempts have mounted; nothing else is shared between them.
fn clear(sides: &Sides) {
    for field in [&sides.allowed, &sides.denied] {
        stage::clear_mounts(&field.dir);
        stage::clear_mounts(&field.work);
    }
}
