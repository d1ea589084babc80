"""Scripts made from what is known of a service: its OpenAPI document, or a recording of its traffic (HAR)."""
