//! Attacks on the lab, with the expected result of each: `make hostile`.
//!
//! Guests, scripted agents, results and other users attack the real program, each in every way that is known. Of each
//! attack the exit code and the words are held against what must come of it, and so are the program's memory, what it
//! left on the disk, and files outside of its directories.

mod attack;
#[path = "../faults/fake.rs"]
#[allow(dead_code, reason = "what the faults need beside a script")]
mod fake;
mod guests;
mod mirror;
mod mirrors;
mod numbers;
#[path = "../support/cache.rs"]
mod own_cache;
mod projects;
mod received;
mod results;
mod scripted;
mod stage;
mod users;

use attack::{Attack, By};
use std::{
    env, fs,
    path::Path,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// The page with the table.
const PAGE: &str = "docs/threat-model.md";
/// Attacks without a machine that run at the same time.
const AT_ONCE: usize = 2;
/// Between these lines is the table.
const BEGIN: &str = "<!-- attacks: written by `make hostile ARGS=--write` -->\n";
const END: &str = "<!-- end of attacks -->";

fn main() -> ExitCode {
    if let Some(name) = fake::in_place_of_qemu() {
        return fake::play(&scripted::scenario(&name));
    }
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write"] => {
            write();
            ExitCode::SUCCESS
        }
        _ => run(&words.iter().filter(|word| !word.starts_with('-')).cloned().collect::<Vec<_>>()),
    }
}

fn all() -> Vec<Attack> {
    let mut all = results::attacks();
    all.extend(numbers::attacks());
    all.extend(scripted::attacks());
    all.extend(users::attacks());
    all.extend(received::attacks());
    all.extend(mirrors::attacks());
    all.extend(projects::attacks());
    all.extend(guests::attacks());
    all
}

fn run(names: &[String]) -> ExitCode {
    let begin = Instant::now();
    let attacks = all();
    let chosen: Vec<&Attack> =
        attacks.iter().filter(|it| names.is_empty() || names.iter().any(|name| it.name.contains(&**name))).collect();
    let contained = AtomicUsize::new(0);
    let output = Mutex::new(());
    let one = |attack: &Attack| {
        let wrong = stage::attack(attack);
        let _line = output.lock();
        println!("{:<34} {}", attack.name, if wrong.is_empty() { "contained" } else { "NOT CONTAINED" });
        wrong.iter().for_each(|line| println!("    {}", line.escape_debug()));
        contained.fetch_add(usize::from(wrong.is_empty()), Ordering::SeqCst);
    };
    let (reals, others): (Vec<&Attack>, Vec<&Attack>) = chosen.iter().copied().partition(|it| it.by == By::Guest);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(attack) = others.get(next.fetch_add(1, Ordering::SeqCst)) {
                    one(attack);
                }
            });
        }
    });
    if others.iter().any(|attack| attack.by == By::Agent) {
        fake::clear();
    }
    reals.into_iter().for_each(one);
    let contained = contained.into_inner();
    let told = is_told(&attacks);
    if !told {
        println!("{PAGE} has another table: `make hostile ARGS=--write` writes it");
    }
    println!("took {:.1} s", begin.elapsed().as_secs_f32());
    println!("attacks: {} run, {contained} contained", chosen.len());
    if contained == chosen.len() && told && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(attacks: &[Attack]) -> String {
    let mut text = "| attack | by | what is done | promise |\n|---|---|---|---|\n".to_owned();
    for attack in attacks {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            attack.name,
            attack.by.words(),
            attack.what,
            attack.promise
        ));
    }
    text
}

fn page() -> (String, String, String) {
    let page = fs::read_to_string(Path::new(stage::ROOT).join(PAGE)).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the table's first line");
    let (table, after) = rest.split_once(END).expect("the table's last line");
    (before.to_owned(), table.to_owned(), after.to_owned())
}

fn is_told(attacks: &[Attack]) -> bool {
    page().1 == table(attacks)
}

fn write() {
    let (before, _, after) = page();
    fs::write(Path::new(stage::ROOT).join(PAGE), format!("{before}{BEGIN}{}{END}{after}", table(&all())))
        .expect("written");
}
