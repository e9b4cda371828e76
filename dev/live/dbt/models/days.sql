select placed_on, count(*) as orders, sum(amount) as amount from {{ ref('stg_orders') }} group by placed_on
