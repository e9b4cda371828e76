//! What a request for rows asks for: `column=value`, `column[gte]=value`, `order`, `columns`.
//!
//! Each filter names a column of the table and becomes an expression over it, with a value of the column's type. No text of
//! a request is ever read as a query. Every problem is a line that names its parameter.

use std::collections::HashSet;

use karat_lake::{
    arrow::datatypes::{DataType, Schema},
    datafusion::{
        common::ScalarValue,
        logical_expr::{Expr, SortExpr, ident},
    },
};
use url::form_urlencoded;

use super::{
    literal::{is_filterable, literal},
    types::{is_orderable, type_name},
};
use crate::serving::params::{MAX_VALUE_CHARS, Params, found, quoted, short};

/// Parameters that are no filters. A column of such a name is asked for with an operator: `limit[eq]=1`.
const OWN: [&str; 5] = ["columns", "order", "limit", "cursor", "as_of_version"];
/// Parameters of one request.
const MAX_PARAMETERS: usize = 64;
/// Values of one `in`, and the characters of all of them.
const MAX_VALUES: usize = 100;
const MAX_LIST_CHARS: usize = 4_000;
/// Columns that rows are ordered by.
const MAX_ORDER: usize = 8;
/// Names that a problem lists.
const NAMES_SHOWN: usize = 30;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
}

impl Operator {
    const ALL: [(&'static str, Self); 7] = [
        ("eq", Self::Equal),
        ("ne", Self::NotEqual),
        ("gt", Self::Greater),
        ("gte", Self::GreaterOrEqual),
        ("lt", Self::Less),
        ("lte", Self::LessOrEqual),
        ("in", Self::In),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(word, _)| *word == name).map(|(_, operator)| *operator)
    }

    fn compare(self, column: &str, mut values: Vec<ScalarValue>) -> Option<Expr> {
        let column = ident(column);
        if self == Self::In {
            return Some(column.in_list(values.into_iter().map(value).collect(), false));
        }
        let value = value(values.pop()?);
        Some(match self {
            Self::Equal | Self::In => column.eq(value),
            Self::NotEqual => column.not_eq(value),
            Self::Greater => column.gt(value),
            Self::GreaterOrEqual => column.gt_eq(value),
            Self::Less => column.lt(value),
            Self::LessOrEqual => column.lt_eq(value),
        })
    }
}

fn value(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

/// Which rows of a table are wanted, and what of them.
#[derive(Debug, Clone)]
pub(crate) struct RowQuestion {
    /// All of them hold.
    pub(crate) conditions: Vec<Expr>,
    /// As it was asked for; rows that are equal in this are told apart by the columns.
    order: Vec<(String, bool)>,
    /// The columns of the answer, in their order.
    pub(crate) columns: Vec<String>,
    /// The question as it was asked, without its page: tells it from others.
    pub(crate) text: String,
}

impl RowQuestion {
    /// Understands the query of a request for rows of a table with this schema, and adds to `params` what it does not.
    pub(crate) fn understand(query: &str, schema: &Schema, params: &mut Params) -> Self {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).take(MAX_PARAMETERS + 1).collect();
        let mut question = Self { conditions: vec![], order: vec![], columns: vec![], text: String::new() };
        if pairs.len() > MAX_PARAMETERS {
            params.add("query", &format!("at most {MAX_PARAMETERS} parameters"), "more");
            return question;
        }
        let mut seen = HashSet::new();
        for (name, text) in &pairs {
            if !seen.insert(name.clone()) {
                params.add(&short(name), "it once", "it again");
                continue;
            }
            let max_chars = if name.ends_with("[in]") { MAX_LIST_CHARS } else { MAX_VALUE_CHARS };
            if text.chars().count() > max_chars {
                params.add(&short(name), &format!("at most {max_chars} characters"), "more");
                continue;
            }
            match &**name {
                "order" => question.order = order(text, schema, params),
                "columns" => question.columns = columns(text, schema, params),
                own if OWN.contains(&own) => {}
                _ => question.conditions.extend(condition(name, text, schema, params)),
            }
        }
        if question.columns.is_empty() {
            question.columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        }
        let mut asked: Vec<_> = pairs.iter().filter(|(name, _)| name != "limit" && name != "cursor").collect();
        asked.sort();
        question.text = format!("{asked:?}");
        question
    }

    /// The order of the answer. It is whole: rows that are equal in it look the same, so pages join.
    pub(crate) fn sort(&self, schema: &Schema) -> Vec<SortExpr> {
        let is_asked = |name: &str| self.order.iter().any(|(asked, _)| asked == name);
        let rest = self.columns.iter().filter(|name| {
            !is_asked(name.as_str()) && schema.field_with_name(name).is_ok_and(|field| is_orderable(field.data_type()))
        });
        let asked = self.order.iter().map(|(name, is_ascending)| ident(name).sort(*is_ascending, false));
        asked.chain(rest.map(|name| ident(name).sort(true, false))).collect()
    }
}

fn condition(name: &str, text: &str, schema: &Schema, params: &mut Params) -> Option<Expr> {
    let has_column = |name: &str| schema.field_with_name(name).is_ok();
    let (column, operator) = match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        Some((column, word)) if !has_column(name) => (column, word),
        _ => (name, "eq"),
    };
    let Ok(field) = schema.field_with_name(column) else {
        params.add(&short(name), &format!("a column of the table, one of {}", names(schema)), "an unknown one");
        return None;
    };
    let Some(operator) = Operator::named(operator) else {
        let words = Operator::ALL.map(|(word, _)| word);
        params.add(&short(name), &format!("one of the operators {}", quoted(&words)), &found(operator));
        return None;
    };
    let data_type = field.data_type();
    let is_ordered = !matches!(operator, Operator::Equal | Operator::NotEqual | Operator::In);
    if !is_filterable(data_type) || (is_ordered && *data_type == DataType::Boolean) {
        let kind = type_name(data_type);
        params.add(&short(name), "a column that can be compared so", &format!("one of type {kind}"));
        return None;
    }
    let values: Vec<&str> = if operator == Operator::In { text.split(',').collect() } else { vec![text] };
    if values.len() > MAX_VALUES {
        params.add(&short(name), &format!("at most {MAX_VALUES} values"), "more");
        return None;
    }
    let mut literals = Vec::with_capacity(values.len());
    for text in values {
        match literal(data_type, text) {
            Ok(value) => literals.push(value),
            Err(expected) => {
                params.add(&short(name), &expected, &found(text));
                return None;
            }
        }
    }
    operator.compare(column, literals)
}

fn order(text: &str, schema: &Schema, params: &mut Params) -> Vec<(String, bool)> {
    let mut order: Vec<(String, bool)> = Vec::new();
    for part in text.split(',') {
        let (name, is_ascending) = part.strip_prefix('-').map_or((part, true), |name| (name, false));
        let Some(field) = column("order", name, schema, params) else { return vec![] };
        if !is_orderable(field) {
            params.add("order", "a column that has an order", &found(name));
        } else if order.iter().any(|(seen, _)| seen == name) {
            params.add("order", "each column once", &format!("{} again", found(name)));
        } else if order.len() == MAX_ORDER {
            params.add("order", &format!("at most {MAX_ORDER} columns"), "more");
        } else {
            order.push((name.to_owned(), is_ascending));
            continue;
        }
        return vec![];
    }
    order
}

fn columns(text: &str, schema: &Schema, params: &mut Params) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for name in text.split(',') {
        if column("columns", name, schema, params).is_none() {
            return vec![];
        }
        if columns.iter().any(|seen| seen == name) {
            params.add("columns", "each column once", &format!("{} again", found(name)));
            return vec![];
        }
        columns.push(name.to_owned());
    }
    columns
}

fn column<'a>(parameter: &str, name: &str, schema: &'a Schema, params: &mut Params) -> Option<&'a DataType> {
    let field = schema.field_with_name(name).ok();
    if field.is_none() {
        params.add(parameter, &format!("columns of the table, some of {}", names(schema)), &found(name));
    }
    field.map(|field| field.data_type())
}

fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().take(NAMES_SHOWN).map(|field| field.name().as_str()).collect();
    quoted(&names)
}

#[cfg(test)]
mod tests {
    use karat_http::ApiError;
    use karat_lake::arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn schema() -> Schema {
        let field = |name, data_type| Field::new(name, data_type, true);
        Schema::new(vec![
            field("source", DataType::Utf8),
            field("Runs", DataType::Int64),
            field("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            field("is_on", DataType::Boolean),
            field("limit", DataType::Int64),
            field("histogram", DataType::Binary),
        ])
    }

    fn understand(query: &str) -> Result<RowQuestion, ApiError> {
        let mut params = Params::default();
        let question = RowQuestion::understand(query, &schema(), &mut params);
        params.finish().map(|()| question)
    }

    #[test]
    fn filters_become_expressions_over_columns_with_values_of_their_types() {
        let cases = [
            ("source=%27%20OR%201%3D1%20--", "source = Utf8(\"' OR 1=1 --\")"),
            ("source[ne]=%22%3B", "source != Utf8(\"\";\")"),
            ("Runs[gte]=5", "Runs >= Int64(5)"),
            ("Runs[in]=1,2", "Runs IN ([Int64(1), Int64(2)])"),
            ("is_on=true", "is_on = Boolean(true)"),
            ("limit[eq]=3", "limit = Int64(3)"),
        ];
        for (query, expected) in cases {
            let question = understand(query).unwrap();
            assert_eq!(question.conditions.len(), 1, "{query}");
            // The display quotes a name with upper case.
            assert_eq!(question.conditions[0].to_string().replace("\"Runs\"", "Runs"), expected, "{query}");
        }
        let question = understand("columns=Runs,source&order=-at,Runs&limit=5&cursor=x").unwrap();
        assert!(question.conditions.is_empty());
        assert_eq!(question.columns, ["Runs", "source"]);
        let sorted = question.sort(&schema());
        let sorted: Vec<_> = sorted.iter().map(|sort| (sort.expr.to_string().replace('"', ""), sort.asc)).collect();
        let expected = [("at", false), ("Runs", true), ("source", true)];
        assert_eq!(sorted, expected.map(|(name, is_ascending)| (name.to_owned(), is_ascending)));
        assert_eq!(understand("a=1").unwrap_err().status(), 422);
    }

    #[test]
    fn a_question_is_known_again_whatever_its_page_and_the_order_of_its_parameters() {
        let text = |query: &str| understand(query).unwrap().text;
        assert_eq!(text("Runs=1&source=x"), text("source=x&limit=7&Runs=1&cursor=c"));
        assert_ne!(text("source=a"), text("source=b"));
        assert_ne!(text("source=a&order=Runs"), text("source=a&order=-Runs"));
    }
}
