//! Tables: a caption, headers with a scope, numbers aligned at the right.

use crate::text;

/// A cell. Text is escaped; a number is our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Whatever text.
    Text(String),
    /// A number, already written out.
    Number(String),
    /// HTML that was made here.
    Html(String),
}

impl Cell {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number.
    pub fn number(number: impl Into<String>) -> Self {
        Self::Number(number.into())
    }
}

/// A table whose first column names its rows.
#[derive(Debug, Clone)]
pub struct Table {
    caption: String,
    head: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table. Columns whose name begins with `#` hold numbers.
    #[must_use]
    pub fn new(caption: &str, columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| {
            name.strip_prefix('#').map_or((*name, false), |number| (number, true))
        };
        Self {
            caption: caption.to_owned(),
            head: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As HTML; it scrolls by itself where it is too wide.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table>\
             <caption>{caption}</caption><thead><tr>",
            label = text::attribute(&self.caption),
            caption = text::html(&self.caption)
        );
        for (name, number) in &self.head {
            let class = if *number { " class=\"n\"" } else { "" };
            out += &format!("<th scope=\"col\"{class}>{}</th>", text::html(name));
        }
        out += "</tr></thead><tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (cell, at) in row.iter().zip(0..) {
                let (class, content) = match cell {
                    Cell::Text(content) => ("", text::html(content)),
                    Cell::Number(content) => (" class=\"n\"", text::html(content)),
                    Cell::Html(content) => ("", content.clone()),
                };
                out += &if at == 0 {
                    format!("<th scope=\"row\"{class}>{content}</th>")
                } else {
                    format!("<td{class}>{content}</td>")
                };
            }
            out += "</tr>\n";
        }
        out + "</tbody></table></div>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_a_scope_and_cells_are_escaped() {
        let mut table = Table::new("a <caption>", &["name", "#value"]);
        table.row([Cell::text("<script>"), Cell::number("0.5")]);
        let html = table.html();
        assert!(html.contains("<th scope=\"col\" class=\"n\">value</th>"), "{html}");
        assert!(html.contains("<th scope=\"row\">&lt;script&gt;</th>"), "{html}");
        assert!(html.contains("<caption>a &lt;caption&gt;</caption>"), "{html}");
    }
}
