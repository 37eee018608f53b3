/* JSON schemas as a form needs them. Pure. */

/** Follow `$ref` within the schema's own document. */
export function resolve(schema, root, depth = 0) {
  if (!schema || typeof schema !== "object" || depth > 20) return {};
  if (typeof schema.$ref === "string") {
    const { $ref, ...own } = schema;
    const { title: _theirs, ...found } =
      ($ref.startsWith("#/")
        ? $ref
            .slice(2)
            .split("/")
            .reduce((at, part) => at?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], root)
        : undefined) ?? {};
    return resolve({ ...found, ...own }, root, depth + 1);
  }
  if (schema.allOf?.length === 1) {
    const { allOf, ...own } = schema;
    return resolve({ ...allOf[0], ...own }, root, depth + 1);
  }
  return schema;
}

/** Whether the schema accepts everything, so that a form has nothing to ask. */
export function isAny(schema) {
  if (schema === null || schema === undefined || schema === true) return true;
  return Object.keys(schema).every((key) => ["title", "description", "default", "$schema", "$defs"].includes(key));
}

/**
 * What kind of field a schema is: `{kind, schema, nullable}`; kinds: choice, text, number, integer, boolean, object, array, variants, null,
 * json (for what no form can ask better).
 */
export function classify(given, root) {
  const schema = resolve(given, root);
  if ("const" in schema) return { kind: "choice", schema: { ...schema, enum: [schema.const] }, nullable: false };
  if (Array.isArray(schema.enum)) return { kind: "choice", schema, nullable: false };
  const variants = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(variants)) return union(schema, variants, root);
  if (Array.isArray(schema.type)) {
    return union(
      schema,
      schema.type.map((type) => ({ ...schema, type })),
      root,
    );
  }
  if (schema.type === "string") return { kind: "text", schema, nullable: false };
  if (["number", "integer", "boolean", "null"].includes(schema.type))
    return { kind: schema.type, schema, nullable: false };
  if (schema.type === "object" && schema.properties) return { kind: "object", schema, nullable: false };
  if (schema.type === "array" && schema.items && !schema.prefixItems) return { kind: "array", schema, nullable: false };
  return { kind: "json", schema, nullable: false };
}

function union(schema, variants, root) {
  const real = variants.filter((one) => resolve(one, root).type !== "null");
  const nullable = real.length < variants.length;
  const { anyOf, oneOf, ...outer } = schema;
  if (real.length === 1) {
    const { title, description, default: preset } = outer;
    const own = Object.fromEntries(
      Object.entries({ title, description, default: preset }).filter(([, value]) => value !== undefined),
    );
    return { ...classify({ ...resolve(real[0], root), ...own }, root), nullable };
  }
  return { kind: "variants", schema: outer, variants: real, nullable };
}

/** The words for a field: its own title, or its name. That of a model that it refers to is the model's. */
export function caption(schema, name) {
  return schema.title && schema.title.toLowerCase().replaceAll(" ", "_") !== name.toLowerCase() ? schema.title : name;
}

/** A short name of a variant. */
export function variantName(given, root, index) {
  const schema = resolve(given, root);
  return schema.title ?? given.$ref?.split("/").at(-1) ?? schema.const ?? schema.type ?? `variant ${index + 1}`;
}

/** The input attributes that the browser can check by itself. */
export function constraints(schema) {
  const found = {};
  if (schema.minLength !== undefined) found.minlength = schema.minLength;
  if (schema.maxLength !== undefined) found.maxlength = schema.maxLength;
  if (schema.minimum !== undefined) found.min = schema.minimum;
  if (schema.maximum !== undefined) found.max = schema.maximum;
  if (schema.multipleOf !== undefined) found.step = schema.multipleOf;
  return found;
}

/** What a field takes, in words under it. */
export function hint(schema) {
  const words = [];
  if (schema.description) words.push(schema.description);
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, minItems, maxItems } = schema;
  if (exclusiveMinimum !== undefined) words.push(`more than ${exclusiveMinimum}`);
  if (exclusiveMaximum !== undefined) words.push(`less than ${exclusiveMaximum}`);
  range(words, minimum, maximum, "");
  range(words, minLength, maxLength, " characters");
  range(words, minItems, maxItems, " items");
  if (schema.pattern) words.push(`like ${schema.pattern}`);
  return words.join(" · ");
}

function range(words, least, most, unit) {
  if (least !== undefined && most !== undefined) words.push(`${least} to ${most}${unit}`);
  else if (least !== undefined) words.push(`at least ${least}${least === 1 ? unit.replace(/s$/, "") : unit}`);
  else if (most !== undefined) words.push(`at most ${most}${unit}`);
}
