select order_id, customer, cast(placed_on as date) as placed_on, amount_cents / 100.0 as amount from {{ ref('orders') }}
