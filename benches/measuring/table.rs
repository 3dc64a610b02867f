//! Figures and tables, as Markdown that also reads well on a terminal.

/// Adds a Markdown table with aligned columns to `text`.
pub fn table(text: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        head.get(column).map_or(0, |cell| cell.chars().count()).max(widest)
    };
    let mut line = |cells: Vec<String>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            // Numbers stand right, names left.
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(&format!("| {} |\n", padded.collect::<Vec<_>>().join(" | ")));
    };
    line(head.iter().map(|cell| (*cell).to_owned()).collect());
    line(
        (0..head.len())
            .map(|column| {
                let dashes = "-".repeat(width(column) - usize::from(column > 0));
                if column == 0 { dashes } else { format!("{dashes}:") }
            })
            .collect(),
    );
    rows.iter().for_each(|row| line(row.clone()));
    text.push('\n');
}

/// A figure with three digits; a dash for none.
#[must_use]
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// How many times `under` goes into `over`, as [`number`] writes it.
#[must_use]
pub fn ratio(over: Option<f64>, under: Option<f64>) -> String {
    number(over.zip(under).map(|(over, under)| over / under))
}
