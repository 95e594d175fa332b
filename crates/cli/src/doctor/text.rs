//! The report for people: first whether it works, then what works, last what to do.
//!
//! The tables are Markdown, so that they can be pasted; the README's is one.

use userfault::doctor::{Answer, Column, Reason, Report, Row};

/// Columns of a terminal that nobody tells the width of.
const WIDTH: usize = 100;
/// The least that a line of prose gets.
const NARROW: usize = 40;

/// The width of the terminal that standard output is.
pub(super) fn width() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    size.map_or(WIDTH, |(columns, _rows)| usize::from(columns.0))
}

pub(super) fn of(report: &Report, width: usize) -> String {
    let mut text = format!("{report}");
    text += &format!(
        "\nLinux {}, {}, user {}, pages of {} bytes\n",
        report.release, report.machine, report.user, report.page_size
    );
    let openings = report.openings.iter().map(|opening| {
        let way = format!("{}: {}", opening.provider, opening.way);
        vec![way, opening.answer.to_string()]
    });
    text += &table(&["opening", ""], openings.collect(), width);
    text += &rows("operation", &report.operations, |row| row.title.to_owned(), width);
    text += &rows("feature", &report.features, |row| row.name.to_owned(), width);
    let mechanisms = report.mechanisms.iter().map(|mechanism| {
        vec![mechanism.name.to_owned(), mechanism.answer.to_string(), mechanism.needed_for.to_owned()]
    });
    text += &table(&["process provider", "", "needed for"], mechanisms.collect(), width);
    text += &wrong(report, width);
    text += &reasons(&report.reasons(), width);
    text
}

/// What each column is called.
fn heading(column: Column) -> &'static str {
    match column {
        Column::LinuxUser => "linux, user",
        Column::LinuxKernel => "linux, kernel",
        Column::Process => "process",
        other => other.name(),
    }
}

fn rows(name: &str, rows: &[Row], first: impl Fn(&Row) -> String, width: usize) -> String {
    let headings: Vec<&str> = std::iter::once(name).chain(Column::ALL.map(heading)).collect();
    let cells = rows.iter().map(|row| {
        let answers = row.answers.iter().map(Answer::to_string);
        std::iter::once(first(row)).chain(answers).collect()
    });
    table(&headings, cells.collect(), width)
}

/// A table of Markdown; where the terminal is too narrow, a line for each cell that says something.
fn table(headings: &[&str], rows: Vec<Vec<String>>, width: usize) -> String {
    let widest = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(headings.get(at).map(|heading| heading.chars().count())).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..headings.len()).map(widest).collect();
    if widths.iter().map(|width| width + 3).sum::<usize>() >= width {
        return list(headings, &rows, width);
    }
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("| {cell:width$} "));
        format!("{}|\n", padded.collect::<String>())
    };
    let rule: String = widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))).collect();
    let body: String = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())).collect();
    format!("\n{}{rule}|\n{body}", line(headings))
}

fn list(headings: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let mut text = format!("\n{}:\n", headings.first().unwrap_or(&""));
    for row in rows {
        let mut cells = row.iter();
        text += &wrap(cells.next().map_or("", String::as_str), "  ", "  ", width);
        for (cell, heading) in cells.zip(headings.iter().skip(1)) {
            let said = if heading.is_empty() { cell.clone() } else { format!("{heading}: {cell}") };
            text += &wrap(&said, "    ", "      ", width);
        }
    }
    text
}

fn wrong(report: &Report, width: usize) -> String {
    let mut text = String::new();
    for row in &report.operations {
        for (column, answer) in Column::ALL.iter().zip(&row.answers) {
            if let Answer::Wrong(what) = answer {
                let said = format!("{}, {}: {what}", row.title, column.name());
                text += &wrap(&said, "- ", "  ", width);
            }
        }
    }
    if text.is_empty() { text } else { format!("\nDone, and WRONG; please tell us:\n{text}") }
}

/// Each remedy once, with all that it is for.
fn reasons(reasons: &[Reason], width: usize) -> String {
    let mut text = String::new();
    let mut told: Vec<&str> = Vec::new();
    for reason in reasons {
        if told.contains(&reason.remedy.as_str()) {
            continue;
        }
        told.push(&reason.remedy);
        let same = reasons.iter().filter(|other| other.remedy == reason.remedy);
        let tried: Vec<String> = same.map(|reason| format!("{}: {}", reason.tried, reason.errno_name())).collect();
        text += &wrap(&tried.join(", "), "- ", "  ", width);
        text += &wrap(&reason.remedy, "  ", "  ", width);
    }
    if text.is_empty() { text } else { format!("\nWhat does not work, or could not be tried, and what to do:\n{text}") }
}

/// Lines of words, the first after `first`, the others after `rest`.
fn wrap(words: &str, first: &str, rest: &str, width: usize) -> String {
    let width = width.max(NARROW);
    let mut text = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            text += line.trim_end();
            text.push('\n');
            rest.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    text += line.trim_end();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Vec<String>> {
        [["a", "works"], ["a longer one", "no: ENOSYS"]].iter().map(|row| row.map(str::to_owned).to_vec()).collect()
    }

    #[test]
    fn a_table_that_fits_is_aligned_and_one_that_does_not_is_a_list() {
        let table = table(&["thing", "said"], cells(), 29);
        let lines: Vec<&str> = table.lines().collect();
        let expected = [
            "",
            "| thing        | said       |",
            "|--------------|------------|",
            "| a            | works      |",
            "| a longer one | no: ENOSYS |",
        ];
        assert_eq!(lines, expected);
        assert!(lines.iter().all(|line| line.len() <= 29));
        let list = super::table(&["thing", "said"], cells(), 28);
        assert_eq!(list, "\nthing:\n  a\n    said: works\n  a longer one\n    said: no: ENOSYS\n");
    }

    #[test]
    fn words_are_wrapped_between_words_and_never_lost() {
        let words =
            "the quick brown fox jumps over the lazy dog, and over a_word_that_is_longer_than_any_line_may_ever_be it";
        for width in [0, 40, 41, 60, 100, 1000] {
            let text = wrap(words, "- ", "  ", width);
            assert_eq!(text.split_whitespace().skip(1).collect::<Vec<_>>(), words.split(' ').collect::<Vec<_>>());
            let longest = text.lines().filter(|line| !line.contains('_')).map(str::len).max().unwrap_or(0);
            assert!(longest <= width.max(NARROW), "{text}");
            assert!(text.lines().skip(1).all(|line| line.starts_with("  ")), "{text}");
        }
    }

    #[test]
    fn a_remedy_is_told_once_with_all_that_it_is_for() {
        let reason = |tried: &str, remedy: &str| Reason {
            tried: tried.to_owned(),
            errno: userfault::Errno::EPERM,
            remedy: remedy.to_owned(),
        };
        let text = reasons(&[reason("one", "type this"), reason("two", "type that"), reason("three", "type this")], 80);
        let said = "\nWhat does not work, or could not be tried, and what to do:\n- one: EPERM, three: EPERM\n  type this\n- two: EPERM\n  type that\n";
        assert_eq!(text, said);
        assert_eq!(reasons(&[], 80), "");
    }
}
