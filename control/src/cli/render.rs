//! Answers of the control process as text: tables and lines for people, JSON for scripts.

use std::io::Write;

use cordis_engine::resp::value::Value;

/// Prints an answer.
pub(crate) fn print(value: &Value, json: bool) {
    let mut text = if json { to_json(value).to_string() } else { to_text(value) };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    // A closed pipe is the reader's decision.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The answer as JSON.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::Int(n) => Json::from(*n),
        Value::Double(x) => serde_json::Number::from_f64(*x).map_or(Json::Null, Json::Number),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            Json::Array(items.iter().map(to_json).collect())
        }
        Value::Map(pairs) => {
            Json::Object(pairs.iter().map(|(k, v)| (cell(k), to_json(v))).collect())
        }
        _ => Json::String(cell(value)),
    }
}

/// The answer for people.
pub(crate) fn to_text(value: &Value) -> String {
    let mut out = String::new();
    write_text(value, "", &mut out);
    out
}

fn write_text(value: &Value, indent: &str, out: &mut String) {
    match value {
        Value::Map(pairs) => write_pairs(pairs, indent, out),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            write_items(items, indent, out);
        }
        _ => {
            for line in cell(value).lines() {
                out.push_str(indent);
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Map(_) => false,
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            items.iter().all(|item| !matches!(item, Value::Map(_) | Value::Array(_)))
        }
        _ => true,
    }
}

fn write_pairs(pairs: &[(Value, Value)], indent: &str, out: &mut String) {
    let plain = || pairs.iter().filter(|(_, value)| is_plain(value));
    let width = plain().map(|(key, _)| label(key).chars().count()).max().unwrap_or(0);
    for (key, value) in plain() {
        let line = format!("{indent}{:width$}  {}", label(key), cell(value));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    for (key, value) in pairs.iter().filter(|(_, value)| !is_plain(value)) {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{indent}{}\n", label(key)));
        write_text(value, &format!("{indent}  "), out);
    }
}

fn write_items(items: &[Value], indent: &str, out: &mut String) {
    if items.is_empty() {
        out.push_str(indent);
        out.push_str("(none)\n");
        return;
    }
    let maps: Option<Vec<&[(Value, Value)]>> = items
        .iter()
        .map(|item| match item {
            Value::Map(pairs) => Some(pairs.as_slice()),
            _ => None,
        })
        .collect();
    match maps {
        Some(rows) => write_table(&rows, indent, out),
        None => items.iter().for_each(|item| write_text(item, indent, out)),
    }
}

/// Rows with the same keys, as columns. Columns that are empty in every row are left out.
fn write_table(rows: &[&[(Value, Value)]], indent: &str, out: &mut String) {
    let mut columns: Vec<String> = Vec::new();
    for (key, value) in rows.iter().flat_map(|row| row.iter()) {
        let name = cell(key);
        if !columns.contains(&name) && !cell(value).is_empty() {
            columns.push(name);
        }
    }
    let field = |row: &[(Value, Value)], column: &str| {
        let found = row.iter().find(|(key, _)| key.as_text() == Some(column));
        found.map(|(_, value)| (cell(value), is_number(value))).unwrap_or_default()
    };
    let heads = columns.iter().map(|name| (name.replace('_', " ").to_uppercase(), false)).collect();
    let mut lines: Vec<Vec<(String, bool)>> = vec![heads];
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| field(row, c)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| lines.iter().map(|line| line[i].0.chars().count()).max().unwrap_or(0))
        .collect();
    // A column of numbers is set to the right, its head too.
    let right: Vec<bool> = (0..columns.len())
        .map(|i| lines[1..].iter().all(|line| line[i].1 || line[i].0.is_empty()))
        .collect();
    for line in &lines {
        let mut text = indent.to_owned();
        for (i, (word, _)) in line.iter().enumerate() {
            let width = widths[i];
            let padded =
                if right[i] { format!("{word:>width$}") } else { format!("{word:<width$}") };
            text.push_str(&padded);
            text.push_str("  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Double(_))
}

fn label(key: &Value) -> String {
    cell(key).replace('_', " ")
}

/// A value in one line.
fn cell(value: &Value) -> String {
    match value {
        Value::Simple(text) | Value::Error(text) | Value::BigNumber(text) => text.clone(),
        Value::Bulk(bytes) | Value::Verbatim(_, bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Int(n) => n.to_string(),
        Value::Double(x) => format!("{x:.3}"),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => String::new(),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        Value::Map(pairs) => {
            let pair = |(key, value): &(Value, Value)| format!("{}={}", cell(key), cell(value));
            pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, Value)]) -> Value {
        Value::Map(pairs.iter().map(|(k, v)| (Value::text(*k), v.clone())).collect())
    }

    #[test]
    fn rows_become_a_table_without_empty_columns() {
        let rows = Value::Array(vec![
            map(&[("id", Value::Int(1)), ("addr", Value::text("a:1")), ("dc", Value::text(""))]),
            map(&[("id", Value::Int(10)), ("addr", Value::text("b:22")), ("dc", Value::text(""))]),
        ]);
        assert_eq!(to_text(&rows), "ID  ADDR\n 1  a:1\n10  b:22\n");
    }

    #[test]
    fn maps_become_lines_and_what_they_hold_follows() {
        let value = map(&[
            ("map_epoch", Value::Int(7)),
            ("groups", Value::Array(vec![map(&[("id", Value::Int(1))])])),
            ("product", Value::text("demo")),
        ]);
        assert_eq!(to_text(&value), "map epoch  7\nproduct    demo\n\ngroups\n  ID\n   1\n");
    }

    #[test]
    fn json_keeps_types() {
        let value = map(&[("n", Value::Int(1)), ("list", Value::Array(vec![Value::Null]))]);
        assert_eq!(to_json(&value).to_string(), r#"{"list":[null],"n":1}"#);
    }
}
