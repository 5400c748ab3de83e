/** Token ids in a body: lists so long that each wrong one is not told by itself. */
import { z } from '@hono/zod-openapi';

export const tokenIds = z
  .custom<number[]>(
    (value) => Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0),
    'Invalid input: expected token ids, whole numbers from 0',
  )
  .openapi({ type: 'array', items: { type: 'integer', minimum: 0 } });
