/** One JSON line a request on stderr: who asked what of which model, how it ended, how long it took. No prompts. */
import { type DestinationStream, type Logger, pino } from 'pino';

export type ServerLogger = Logger;

export function createLogger(level: string, destination?: DestinationStream): ServerLogger {
  return pino({ level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime }, destination ?? pino.destination(2));
}
