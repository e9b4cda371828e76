//! How the declared columns of a pipeline differ from those of its tables.

use karat_lake::{
    Lake,
    arrow::datatypes::{Schema, SchemaRef},
};
use karat_schemas::pipelines::Pipeline;

use crate::{Result, plan::PipelinePlan};

/// Each existing table whose columns the declaration changes, with the changes in words. Tables that do not exist are not
/// listed.
pub(crate) async fn column_changes(pipeline: &Pipeline, lake: &Lake) -> Result<Vec<(String, String)>> {
    let plan = PipelinePlan::new(pipeline).await?;
    let keyed = plan.keyed_specs().into_iter().map(|(spec, _)| spec);
    let mut changes = Vec::new();
    for spec in plan.append_specs().into_iter().chain(keyed) {
        let found = match lake.open(&spec.name).await {
            Ok(table) => table.schema().clone(),
            Err(karat_lake::Error::UnknownTable(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let changed = difference(&found, &spec.schema);
        if !changed.is_empty() {
            changes.push((spec.name, changed));
        }
    }
    Ok(changes)
}

fn difference(before: &SchemaRef, after: &SchemaRef) -> String {
    let type_in =
        |schema: &Schema, name: &str| schema.field_with_name(name).ok().map(|field| field.data_type().clone());
    let removed = before.fields().iter().filter(|field| type_in(after, field.name()).is_none());
    let mut words: Vec<String> = removed.map(|field| format!("`{}` removed", field.name())).collect();
    for field in after.fields() {
        match type_in(before, field.name()) {
            None => words.push(format!("`{}` {} added", field.name(), field.data_type())),
            Some(old) if old != *field.data_type() => {
                words.push(format!("`{}` {} instead of {old}", field.name(), field.data_type()));
            }
            Some(_) => {}
        }
    }
    let names =
        |schema: &SchemaRef| -> Vec<String> { schema.fields().iter().map(|field| field.name().clone()).collect() };
    if words.is_empty() && names(before) != names(after) {
        words.push("in another order".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::datatypes::{DataType, Field};

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    #[test]
    fn added_removed_changed_and_moved_columns_are_named() {
        use DataType::{Float64, Int64, Utf8};
        let before = schema(&[("a", Int64), ("b", Utf8)]);
        assert_eq!(difference(&before, &before), "");
        assert_eq!(difference(&before, &schema(&[("b", Utf8), ("a", Int64)])), "in another order");
        assert_eq!(
            difference(&before, &schema(&[("a", Float64), ("c", Utf8)])),
            "`b` removed, `a` Float64 instead of Int64, `c` Utf8 added"
        );
    }
}
