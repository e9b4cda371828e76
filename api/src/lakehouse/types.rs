//! The words for types of columns: those of `pipelines.toml`, where it has one.

use karat_lake::arrow::datatypes::DataType;

/// The word for a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".to_owned()
        }
        DataType::Boolean => "bool".to_owned(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "float64".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::UInt64 => "uint64".to_owned(),
        whole if whole.is_integer() => "int64".to_owned(),
        DataType::Dictionary(_, value) => type_name(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list of {}", type_name(item.data_type()))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// Whether rows can be put in the order of such a column.
pub(crate) fn is_orderable(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Null)
}

#[cfg(test)]
mod tests {
    use karat_lake::arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn types_have_the_words_of_the_declaration() {
        for (data_type, word) in [
            (DataType::Utf8View, "string"),
            (DataType::Int64, "int64"),
            (DataType::Float64, "float64"),
            (DataType::Boolean, "bool"),
            (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "timestamp"),
            (DataType::Date32, "date"),
            (DataType::Decimal128(18, 2), "decimal(18,2)"),
            (DataType::new_list(DataType::Utf8, true), "list of string"),
        ] {
            assert_eq!(type_name(&data_type), word);
        }
    }
}
