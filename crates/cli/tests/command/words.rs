//! Manual pages and completions, as shells and readers of manuals take them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::support::{skip, stderr, stdout, text};

fn userfault(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_userfault")).args(arguments).output().unwrap()
}

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let help = stdout(&userfault(&["--help"]));
    let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let first_words = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = first_words.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

/// The long flags of a command, as its `--help` lists them.
fn flags(command: &str) -> Vec<String> {
    let help = stdout(&userfault(&[command, "--help"]));
    let options =
        help.split("Options:").nth(1).and_then(|rest| rest.split("\nExamples:").next()).unwrap_or("").to_owned();
    options
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")).map(str::to_owned))
        .collect()
}

/// What `program` says of `input`; `None` if it is not installed.
fn read_by(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().unwrap().write_all(input).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn every_command_has_a_manual_page_with_all_its_flags() {
    let commands = commands();
    assert!(commands.iter().any(|command| command == "map"), "{commands:?}");
    for command in &commands {
        let page = userfault(&["man", command]);
        assert!(page.status.success(), "{}", text(&page));
        let plain = stdout(&page).replace('\\', "");
        assert!(plain.contains(&format!("userfault-{command}")), "{plain}");
        for flag in flags(command) {
            assert!(plain.contains(&flag), "{flag} is not in the page of {command}");
        }
    }
    assert!(flags("map").len() > 8, "{:?}", flags("map"));
    let all = stdout(&userfault(&["man"])).replace('\\', "");
    commands.iter().for_each(|command| assert!(all.contains(command), "{command}: {all}"));
    let refused = userfault(&["man", "nothing"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("`nothing` is no command: write one of map"), "{}", text(&refused));
    // What the doctor starts itself for is nobody's command.
    for arguments in
        [&["man"][..], &["man", "trial"], &["man", "nothing"], &["completions", "bash"], &["completions", "fish"]]
    {
        let said = userfault(arguments);
        let words = stdout(&said) + &stderr(&said).replace("`trial` is no command", "");
        assert!(!words.contains("trial"), "{arguments:?}: {words}");
    }
}

#[test]
fn shells_can_read_the_completions() {
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let script = userfault(&["completions", shell]);
        assert!(script.status.success(), "{}", text(&script));
        for flag in flags("map") {
            assert!(stdout(&script).contains(flag.trim_start_matches('-')), "{shell} does not know {flag}");
        }
        match read_by(shell, check, &script.stdout) {
            Some(read) => assert!(read.status.success(), "{shell}: {}", text(&read)),
            None => println!("skipped: because {shell} is not installed"),
        }
    }
}

/// Types a beginning to bash as a user would, and looks at what it offers.
#[test]
fn bash_completes_flags_and_their_values() {
    let script = stdout(&userfault(&["completions", "bash"]));
    for (line, expected) in
        [("userfault ma", "map"), ("userfault map --ord", "--order"), ("userfault map --order r", "random")]
    {
        let words: Vec<&str> = line.split(' ').collect();
        let last = words.len() - 1;
        let ask = format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD={last}; COMP_LINE='{line}'; COMP_POINT={}\n\
             _userfault userfault '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line.len(),
            words[last],
            words[last - 1]
        );
        let Some(answer) = read_by("bash", &[], ask.as_bytes()) else { return skip("bash is not installed") };
        assert!(stdout(&answer).lines().any(|offer| offer == expected), "{line}: {}", text(&answer));
    }
}
