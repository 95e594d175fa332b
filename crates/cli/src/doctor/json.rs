//! The report as one object, with names that stay.

use serde_json::{Map, Value, json};
use userfault::Provider;
use userfault::doctor::{Answer, Column, Mechanism, Opening, Reason, Report, Row};

pub(super) fn of(report: &Report) -> Value {
    json!({
        "linux": report.works(Provider::Linux),
        "process": report.works(Provider::Process),
        "kernel": report.release,
        "machine": report.machine,
        "user": report.user,
        "page_size": report.page_size,
        "openings": report.openings.iter().map(opening).collect::<Value>(),
        "operations": rows(&report.operations),
        "features": rows(&report.features),
        "mechanisms": report.mechanisms.iter().map(mechanism).collect::<Map<_, _>>(),
        "reasons": report.reasons().iter().map(reason).collect::<Value>(),
    })
}

fn opening(opening: &Opening) -> Value {
    let mut object = answer(&opening.answer);
    object["provider"] = opening.provider.to_string().into();
    object["way"] = opening.way.into();
    object
}

/// Each row by its name, each answer by its column's.
fn rows(rows: &[Row]) -> Value {
    let answers = |row: &Row| -> Value {
        let columns = Column::ALL.into_iter().map(|column| column.name().to_owned());
        Value::Object(columns.zip(row.answers.iter().map(answer)).collect())
    };
    rows.iter().map(|row| (row.name.to_owned(), answers(row))).collect()
}

fn mechanism(mechanism: &Mechanism) -> (String, Value) {
    let mut object = answer(&mechanism.answer);
    object["needed_for"] = mechanism.needed_for.into();
    (mechanism.name.to_owned(), object)
}

fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Works => json!({ "answer": "works" }),
        Answer::Offered => json!({ "answer": "offered" }),
        Answer::Refused(why) | Answer::Untried(why) => {
            let mut object = reason(why);
            let word = if matches!(answer, Answer::Refused(_)) { "refused" } else { "offered" };
            object["answer"] = word.into();
            object
        }
        Answer::Wrong(what) => json!({ "answer": "wrong", "what": what }),
        other => json!({ "answer": "unknown", "what": other.to_string() }),
    }
}

fn reason(reason: &Reason) -> Value {
    json!({ "tried": reason.tried, "errno": reason.errno_name(), "remedy": reason.remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(remedy: &str) -> Report {
        let why = Reason { tried: "x".to_owned(), errno: userfault::Errno::EPERM, remedy: remedy.to_owned() };
        let answers = [Answer::Works, Answer::Refused(why), Answer::Wrong(remedy.to_owned())];
        Report {
            release: remedy.to_owned(),
            machine: "m".to_owned(),
            user: 7,
            page_size: 4096,
            openings: Vec::new(),
            operations: vec![Row { name: "missing", title: "", answers }],
            features: Vec::new(),
            mechanisms: Vec::new(),
        }
    }

    #[test]
    fn any_text_comes_out_as_it_went_in_on_one_line() {
        let all: String = ('\0'..='\u{17f}').chain(['\u{2028}', '\u{ffff}', '😀', '\\', '"', '\u{7f}']).collect();
        let line = of(&report(&all)).to_string();
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["kernel"], all.as_str());
        assert_eq!(read["operations"]["missing"]["linux-kernel"]["remedy"], all.as_str());
        assert_eq!(read["operations"]["missing"]["process"]["what"], all.as_str());
        assert_eq!((&read["linux"], &read["process"]), (&Value::Bool(true), &Value::Bool(false)));
    }

    #[test]
    fn an_error_without_a_name_is_its_number() {
        let why = Reason { tried: String::new(), errno: userfault::Errno::from_raw(77), remedy: String::new() };
        assert_eq!(reason(&why)["errno"], "errno 77");
    }
}
